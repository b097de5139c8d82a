"""A pre-made Debian image becomes a base image: its kernel is taken out, what makes it a worker is put in.

Nothing is mounted, and nothing of the image runs outside of a machine: drivers, Perl and its libraries for the
initramfs are read out of its file system, and whether it does what a worker has to, a job in a machine of it tells.
"""

import hashlib
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from construir_ftp import architecture, image, mend
from construir_ftp.errors import ConstruirError
from construir_ftp.image import (
    BaseImage,
    additions,
    collect,
    drivers,
    initramfs,
    kernel,
    perl,
    premade,
    recipe,
    rootdisk,
    versions,
)
from construir_ftp.image.rootdisk import RootDisk

_RELEASE = re.compile(r"vmlinuz-([A-Za-z0-9][A-Za-z0-9.+~_-]*)")


class _Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a root disk says of itself."""

    suite: str
    architecture: str
    release: str
    packages: dict[str, str]
    sources: list[str]
    date: datetime


def adopt(images: Path, file: Path, name: str, approve: Callable[[BaseImage], None]) -> BaseImage:
    """Make of the image `file` (see premade) the live base image of a name, if `approve` has nothing against it.

    Raises ConstruirError, saying what is wrong with it; then nothing has changed.
    """
    with versions.draft(images, name) as draft:
        root = draft / image.ROOT
        premade.take_root(file, root)
        mend.check(root)
        facts = _examine(root, file)
        mend.drop_journal(root)
        (draft / "additions").mkdir()
        additions.add(root, draft / "additions")
        _take_out(root, facts, draft)
        _write_manifest(draft, name, facts, file)
        base = versions.publish(images, name, draft, approve)
    image.note_proof(base)  # its digests were taken a moment ago
    collect.trim(images, name)
    return base


# -- what it is ------------------------------------------------------------------------------------------------


def _examine(root: Path, file: Path) -> _Facts:
    with rootdisk.opened(root) as disk:
        system = dict(line.split("=", 1) for line in disk.text("/etc/os-release").splitlines() if "=" in line)
        packages = _packages(disk.text("/var/lib/dpkg/status"))
        if "debian" not in f"{system.get('ID', '')} {system.get('ID_LIKE', '')}" or "dpkg" not in packages:
            raise ConstruirError(f"{file}: no Debian on its root partition (/etc/os-release, /var/lib/dpkg/status)")
        status = disk.find("/var/lib/dpkg/status")
        if (found := packages["dpkg"][1]) != architecture.native():
            raise ConstruirError(f"{file}: a Debian for {found!a}; one for {architecture.native()} can be imported")
        return _Facts(
            suite=re.sub(r"[^a-z0-9.-]", "", system.get("VERSION_CODENAME", "")) or "debian",
            architecture=found,
            release=_release(disk, file),
            packages={name: version for name, (version, _) in packages.items()},
            sources=[line for line in disk.text("/etc/apt/sources.list").splitlines() if line and line[0] != "#"],
            date=datetime.fromtimestamp(status.mtime_ns // 10**9 if status else 0, UTC),
        )


def _release(disk: RootDisk, file: Path) -> str:
    """The newest of the kernels that have their drivers beside them."""
    found = [match[1] for name in disk.names("/boot") if (match := _RELEASE.fullmatch(name))]
    whole = [release for release in found if disk.find(f"/lib/modules/{release}/modules.dep")]
    if not whole:
        raise ConstruirError(
            f"{file}: no kernel with its drivers on its root partition (/boot/vmlinuz-*, /lib/modules)"
        )
    return max(whole, key=lambda release: [int(part) for part in re.findall(r"\d+", release)])


def _packages(status: str) -> dict[str, tuple[str, str]]:
    """Of every installed package its version and architecture (deb-control(5))."""
    found = {}
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Architecture|Status): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            found[fields.get("Package", "")] = (fields.get("Version", ""), fields.get("Architecture", ""))
    return found


# -- what is taken out of it -------------------------------------------------------------------------------------


def _take_out(root: Path, facts: _Facts, draft: Path) -> None:
    tree, packed = draft / "initramfs", draft / "vmlinuz"
    with rootdisk.opened(root) as disk:
        packed.write_bytes(disk.read(f"/boot/vmlinuz-{facts.release}"))
        kernel.extract(packed, draft / image.KERNEL)
        packed.unlink()
        files = perl.collect(disk) | {"/init": (recipe.source() / "overlay" / "root" / "runjob").read_bytes()}
        found = drivers.collect(disk, facts.release, recipe.modules(facts.architecture))
    files |= {f"/modules/{name}": content for name, content in found.items()}
    files["/modules/order"] = "".join(f"{name}\n" for name in found).encode()
    for path, content in files.items():
        target = tree / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(0o755)
    initramfs.pack(tree, draft / image.INITRD, int(facts.date.timestamp()))
    shutil.rmtree(tree)


def _write_manifest(draft: Path, name: str, facts: _Facts, file: Path) -> None:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    manifest = image.Manifest(
        name=name,
        suite=facts.suite,
        architecture=facts.architecture,
        include=[],
        recipe="",
        kernel_release=facts.release,
        created=datetime.now(UTC),
        parts={part: image.measure(draft / part) for part in image.PARTS},
        packages=facts.packages,
        date=facts.date,
        sources=facts.sources,
        imported=f"sha256:{digest}",
    )
    (draft / image.MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
