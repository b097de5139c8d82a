"""Build a base image: mmdebstrap makes the tree, mke2fs the disk; nothing is mounted, and root is not needed.

Everything the image is made from is in base-image/; this only puts it together. An image
appears under its name in one rename, whole, or not at all.
"""

import hashlib
import os
import shlex
import shutil
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from construir_ftp import disk, image, process
from construir_ftp.errors import CommandError, ConstruirError, UsageError
from construir_ftp.image import kernel
from construir_ftp.units import Size

# Part of every recipe's digest: raise it when this module makes something else of the same base-image/.
_BUILDER_VERSION = 3
# Apparent size of the root disk. What is free in it is the job's to fill, in the overlay that is thrown away.
_ROOT_BYTES = Size.parse("2GiB")
_TIMEOUT_S = 3600


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """What to build: Debian's name for the release, packages beside those of base-image/packages, the archive."""

    name: str
    suite: str
    include: tuple[str, ...] = ()
    mirror: str = ""

    def digest(self) -> str:
        """Changes whenever the image built from this would be another one, the archive's own changes apart."""
        hasher = hashlib.sha256(repr((_BUILDER_VERSION, self.suite, sorted(self.include), self.mirror)).encode())
        for path in sorted(source().rglob("*")):
            if path.is_file():
                hasher.update(f"{path.relative_to(source())} {path.stat().st_mode & 0o111:o}\n".encode())
                hasher.update(hashlib.sha256(path.read_bytes()).digest())
        return hasher.hexdigest()


def source() -> Path:
    """base-image/: beside the package in a checkout, else where setup.cfg installs it."""
    for place in (Path(__file__).parents[2], Path(sysconfig.get_path("data")) / "share" / "construir"):
        if (place / "base-image" / "packages").is_file():
            return place / "base-image"
    raise ConstruirError("base-image/ is missing from this installation; install Construir again")


def default_name(suite: str) -> str:
    """What an image of `suite` is called unless it is given a name."""
    return f"{suite}-{architecture()}"


def architecture() -> str:
    """Debian's name for this machine's architecture."""
    return process.run(["dpkg", "--print-architecture"], timeout_s=10).strip()


def is_current(images: Path, recipe: Recipe) -> bool:
    """Whether an image of that name is there and was made from the same recipe."""
    try:
        return image.find(images, recipe.name).manifest.recipe == recipe.digest()
    except ConstruirError:
        return False


def build(images: Path, recipe: Recipe) -> image.BaseImage:
    """Build the image and put it in place of any older one of its name. Raises ConstruirError; then nothing changed."""
    if "/" in recipe.name or recipe.name.startswith("."):
        raise UsageError(f"'{recipe.name}' is no name for a base image: it may not hold a slash or begin with a dot")
    images.mkdir(parents=True, exist_ok=True)
    with _workplace() as work, tempfile.TemporaryDirectory(prefix=".building-", dir=images) as draft_name:
        exported, draft = work / "out", Path(draft_name)
        _export(work / "root", exported, recipe)
        kernel.extract(exported / "vmlinuz", draft / image.KERNEL)
        _pack_initramfs(exported / "initramfs", draft / image.INITRD)
        with (exported / image.ROOT).open("rb") as root:
            disk.write_sparse(root, draft / image.ROOT, _ROOT_BYTES)
        _write_manifest(exported, draft, recipe)
        _put_in_place(draft, images / recipe.name)
    base = image.find(images, recipe.name)
    image.prove(base)
    return base


@contextmanager
def _workplace() -> Iterator[Path]:
    # An ordinary user's build runs under subordinate ids (subuid(5)), which own what they make: they have to be able
    # to reach this directory, to write to out/, and only they can remove what is in root/.
    work = Path(tempfile.mkdtemp(prefix="construir-build-", dir="/var/tmp"))
    try:
        work.chmod(0o711)
        (work / "out").mkdir()
        (work / "out").chmod(0o777)
        yield work
    finally:
        # What the builder made only the builder can remove; the directories around it are ours.
        emptied = [place for place in (work / "root", work / "out") if place.exists()]
        with suppress(CommandError):
            process.run([*_as_builder(), "find", *emptied, "-mindepth", "1", "-delete"], timeout_s=_TIMEOUT_S)
        shutil.rmtree(work, ignore_errors=True)


def _as_builder() -> list[str]:
    """What to put before a command so that it sees the tree's files with the owners they will have."""
    return [] if os.geteuid() == 0 else ["mmdebstrap", "--unshare-helper"]


def _export(root: Path, out: Path, recipe: Recipe) -> None:
    env = process.environment(INITRD="No", HOME=str(out), TMPDIR=str(out))  # no initrd: ours is made below
    process.run(mmdebstrap_argv(root, recipe), timeout_s=_TIMEOUT_S, env=env)
    process.run([*_as_builder(), source() / "export", root, out, str(_ROOT_BYTES)], timeout_s=_TIMEOUT_S, env=env)


def mmdebstrap_argv(root: Path, recipe: Recipe) -> list[str | Path]:
    """The command that makes the tree `root`; see mmdebstrap(1)."""
    packages = [*_lines("packages"), *recipe.include]
    return [
        "mmdebstrap",
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        "--variant=minbase",
        "--format=directory",
        "--quiet",
        f"--include={','.join(packages)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _lines("excludes")),
        *(f'--customize-hook={shlex.quote(str(hook))} "$1"' for hook in sorted((source() / "hooks").iterdir())),
        recipe.suite,
        root,
        *([recipe.mirror] if recipe.mirror else []),
    ]


def _lines(name: str) -> list[str]:
    lines = (line.strip() for line in (source() / name).read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _pack_initramfs(tree: Path, target: Path) -> None:
    """initramfs/ and the exported drivers -> a newc cpio archive (the kernel's initramfs-buffer-format.rst), unpacked
    faster than a compressed one is under emulation.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "root"
        shutil.copytree(tree, root)
        for directory in ("dev", "root", "sys"):
            (root / directory).mkdir()
        names = Path(name) / "names"
        names.write_text("".join(f"{path.relative_to(root)}\n" for path in sorted(root.rglob("*"))))
        with names.open("rb") as listing, target.open("wb") as archive:
            argv = ["cpio", "--create", "--format=newc", "--owner=0:0", "--reproducible", "--quiet"]
            process.run(argv, stdin=listing, stdout=archive, cwd=root, timeout_s=60)


def _write_manifest(exported: Path, draft: Path, recipe: Recipe) -> None:
    packages = dict(line.split("=", 1) for line in (exported / "packages").read_text().splitlines())
    manifest = image.Manifest(
        name=recipe.name,
        suite=recipe.suite,
        architecture=architecture(),
        include=sorted(recipe.include),
        recipe=recipe.digest(),
        kernel_release=(exported / "release").read_text().strip(),
        created=datetime.now(UTC),
        parts={name: image.measure(draft / name) for name in image.PARTS},
        packages=packages,
    )
    (draft / image.MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))


def _put_in_place(draft: Path, target: Path) -> None:
    draft.chmod(0o755)
    for part in draft.iterdir():
        part.chmod(0o444)
        disk.fsync(part)
    disk.fsync(draft)
    if target.exists():
        # Machines that run keep the old one's files open. Not atomic; a crash in between leaves no image, which the
        # next build mends, and never a wrong one.
        outgoing = target.with_name(f".outgoing-{target.name}")
        shutil.rmtree(outgoing, ignore_errors=True)
        target.rename(outgoing)
    # A directory of the same name as the draft has to be left for TemporaryDirectory to remove.
    draft.rename(target)
    draft.mkdir()
    disk.fsync(target.parent)
    shutil.rmtree(target.with_name(f".outgoing-{target.name}"), ignore_errors=True)
