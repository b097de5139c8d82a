"""Base images for tests: small ones (a few files in a real ext4, no kernel), real ones, and copies of those."""

import subprocess
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from construir_ftp.image import baseimage, versions
from construir_ftp.image.baseimage import BaseImage
from tests.support.appliance import construir

Approve = Callable[[BaseImage], None]
PACKAGES = {"bash": "5.2-1"}
BUILD_S = 900


def publish(
    images: Path,
    name: str,
    files: dict[str, str],
    packages: dict[str, str] | None = None,
    approve: Approve = lambda base: None,
    recipe: str = "",
    architecture: str = "amd64",
) -> BaseImage:
    """Make a version of `name` with these files the live one, as a build does. Those in bin/ are programs."""
    with versions.draft(images, name) as draft, tempfile.TemporaryDirectory() as tree:
        for path, content in files.items():
            (Path(tree) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(tree) / path).write_text(content)
            (Path(tree) / path).chmod(0o755 if path.startswith("bin/") else 0o644)
        subprocess.run(["mke2fs", "-q", "-d", tree, draft / baseimage.ROOT, "1M"], check=True, capture_output=True)
        (draft / baseimage.KERNEL).write_text("kernel")
        (draft / baseimage.INITRD).write_text("initrd")
        _write_manifest(draft, name, packages or PACKAGES, recipe, architecture)
        return versions.publish(images, name, draft, approve)


def _write_manifest(draft: Path, name: str, packages: dict[str, str], recipe: str, architecture: str) -> None:
    manifest = baseimage.Manifest(
        name=name,
        suite="bookworm",
        architecture=architecture,
        include=[],
        recipe=recipe,
        kernel_release="6.1",
        created=datetime.now(UTC),
        parts={part: baseimage.measure(draft / part) for part in baseimage.PARTS},
        packages=packages,
    )
    (draft / baseimage.MANIFEST).write_bytes(msgspec.json.encode(manifest))


def publish_copy(
    images: Path,
    base: BaseImage,
    change: Callable[[Path], None] = lambda draft: None,
    approve: Approve = lambda base: None,
) -> BaseImage:
    """Make a copy of a real base image the live version of its name, after `change` was made to its files."""
    with versions.draft(images, base.name) as draft:
        # cp knows where the holes are, and need not read two gigabytes of them.
        files = [base.path / part for part in baseimage.PARTS]
        subprocess.run(["cp", "--sparse=always", "--no-preserve=mode", *files, draft], check=True)
        before = {part: (draft / part).stat().st_mtime_ns for part in baseimage.PARTS}
        change(draft)
        changed = [part for part in baseimage.PARTS if (draft / part).stat().st_mtime_ns != before[part]]
        parts = base.manifest.parts | {part: baseimage.measure(draft / part) for part in changed}
        manifest = msgspec.structs.replace(base.manifest, parts=parts, created=datetime.now(UTC))
        (draft / baseimage.MANIFEST).write_bytes(msgspec.json.encode(manifest))
        published = versions.publish(images, base.name, draft, approve)
    baseimage.note_proof(published)  # as a build does
    return published


def build(images: Path, name: str, *options: str) -> BaseImage:
    """Build a real one by the command."""
    built = construir("image", "build", name, *options, f"--images={images}", timeout_s=BUILD_S)
    assert built.returncode == 0, built.stderr
    return baseimage.find(images, name)


def twin_of(built: BaseImage, base: BaseImage, images: Path) -> BaseImage:
    """What another build of `built` has made: `base`, where that was made of the same, else a new one in `images`."""
    one, other = built.manifest, base.manifest
    if (one.recipe, one.packages) == (other.recipe, other.packages):
        return base
    return build(images, built.name)
