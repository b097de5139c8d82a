"""Base images: find one, list them, prove one whole.

A base image is a directory <images>/<name>/ of files that never change once it is there:
root.img (ext4, no journal), kernel, initrd.img and manifest.json, which holds the digest of each
part and the packages inside. How one is made is build's business.
"""

import hashlib
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec

from construir_ftp import disk
from construir_ftp.errors import ConstruirError

ROOT, KERNEL, INITRD, MANIFEST = "root.img", "kernel", "initrd.img", "manifest.json"
PARTS = (ROOT, KERNEL, INITRD)


class Part(msgspec.Struct, frozen=True):
    """One file of a base image."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """manifest.json. `recipe` is the digest of all that the image was made from; times are aware UTC."""

    version: int = 1
    name: str
    suite: str
    architecture: str
    include: list[str]
    recipe: str
    kernel_release: str
    created: datetime
    parts: dict[str, Part]
    packages: dict[str, str]

    def digest(self) -> str:
        """What the image is, in one value: the SHA-256 of its parts' digests, in the order of their names."""
        parts = "".join(f"{self.parts[name].sha256}  {name}\n" for name in sorted(self.parts))
        return "sha256:" + hashlib.sha256(parts.encode()).hexdigest()


class BaseImage(msgspec.Struct, frozen=True):
    """A base image that was found: where it is and what its manifest says."""

    path: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """The directory's name, such as bookworm-amd64."""
        return self.path.name

    @property
    def root(self) -> Path:
        """The root disk, only ever read."""
        return self.path / ROOT

    @property
    def kernel(self) -> Path:
        """What QEMU boots directly."""
        return self.path / KERNEL

    @property
    def initrd(self) -> Path:
        """The initramfs with the drivers the kernel lacks."""
        return self.path / INITRD


def find(images: Path, name: str) -> BaseImage:
    """The base image called `name`. Raises ConstruirError, saying which command builds it."""
    path = images / name
    try:
        manifest = msgspec.json.decode((path / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError as error:
        raise ConstruirError(f"base image '{name}' not found in {images}; run: construir image build {name}") from error
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ConstruirError(
            f"base image '{name}': {path / MANIFEST} can't be read ({error}); run: construir image build --force {name}"
        ) from error
    return BaseImage(path, manifest)


def every(images: Path) -> list[BaseImage]:
    """All base images that can be read, by name."""
    return [find(images, path.parent.name) for path in sorted(images.glob(f"[!.]*/{MANIFEST}"))]


def verify(base: BaseImage) -> None:
    """Read every part and compare its digest with the manifest. Raises ConstruirError naming the first that differs."""
    for name in PARTS:
        if name not in base.manifest.parts or measure(base.path / name) != base.manifest.parts[name]:
            raise ConstruirError(
                f"base image '{base.name}': {name} is not what was built; "
                f"run: construir image build --force {base.name}"
            )


def prove(base: BaseImage) -> None:
    """Like verify, but quick: what was proved once is read again only once a part has changed."""
    marks = repr([_mark(base.path / name) for name in PARTS])
    memory = base.path.parent / f".proved-{base.name}"
    if not memory.exists() or memory.read_text() != marks:
        verify(base)
        with suppress(OSError):  # an ordinary user may run jobs on images that belong to root
            disk.replace_durably(memory, marks.encode())


def _mark(path: Path) -> tuple[int, int, int]:
    try:
        seen = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return (seen.st_ino, seen.st_size, seen.st_mtime_ns)


def measure(path: Path) -> Part:
    """Size and SHA-256 of a file; of a missing one, neither."""
    try:
        with path.open("rb") as file:
            return Part(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
    except FileNotFoundError:
        return Part(0, "")
