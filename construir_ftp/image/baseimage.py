"""Base images: find one, list them, prove one whole.

A base image is a directory <images>/<name>/ of files that never change once it is there: root.img (ext4, no journal),
kernel, initrd.img, perhaps uml/, and manifest.json, which holds the digest of each part and the packages inside. How
one is made is build's business; how another takes its name, while machines still run on it, that of versions.
"""

import hashlib
import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import msgspec

from construir_ftp import files, locks, schema
from construir_ftp.config import APPLIANCE_CONFIG, APPLIANCE_IMAGES, Config, load
from construir_ftp.errors import BaseImageError, ConfigError, ConstruirError, UsageError

ROOT, KERNEL, INITRD, MANIFEST = "root.img", "kernel", "initrd.img", "manifest.json"
# Not every image has one, and no machine of ours looks at it: see bootable.
DISK = "disk.img"
PARTS = (ROOT, KERNEL, INITRD)
# A directory, in images that have a user-mode kernel: each file below it is a part of the image, too.
UML = "uml"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


class Part(msgspec.Struct, frozen=True):
    """One file of a base image."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """manifest.json. Times are aware UTC.

    `recipe` is the digest of all that the image was made from, the archive apart; `ingredients` has one for each file
    of base-image/. `sources` are the archives, as in sources.list(5). Nothing in the image is newer than `date`;
    `created` is when it was built, and all that differs between two builds of the same. `disk` is what boots by itself,
    where that was asked for; being made of the rest, it is no part of what the image is. Of an image that was imported
    there is no recipe, and `imported` is the digest of the file it came in. `least_memory` is how many bytes of
    memory a machine of it needs to come up, 0 where that is not known; it is no part of what the image is either.
    `uml` is the release of the user-mode kernel, `uml_source` where it is taken from (recipe.Recipe.uml); empty where
    the image has none.
    """

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
    date: datetime | None = None
    snapshot: str = ""
    sources: list[str] = []
    ingredients: dict[str, str] = {}
    disk: Part | None = None
    imported: str = ""
    least_memory: int = 0
    uml: str = ""
    uml_source: str = ""

    def digest(self) -> str:
        """What the image is, in one value: the SHA-256 of its parts' digests, in the order of their names."""
        parts = "".join(f"{self.parts[name].sha256}  {name}\n" for name in sorted(self.parts))
        return "sha256:" + hashlib.sha256(parts.encode()).hexdigest()


class BaseImage(msgspec.Struct, frozen=True):
    """A base image that was found: where it is, its name, such as bookworm-amd64, and what its manifest says.

    The place is that of this version, and stays it when another one gets the name. `marks` are what its files were like
    when it was proved, see prove; empty before.
    """

    path: Path
    name: str
    manifest: Manifest
    marks: str = ""

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

    @property
    def uml(self) -> Path:
        """What a user-mode machine's jail sees in place of the host's system, where the image has it."""
        return self.path / UML


def note_least_memory(path: Path, name: str, measure: Callable[[BaseImage], int]) -> None:
    """Have `measure` say how little memory the image in the directory `path` needs, and write that down there."""
    base = read(path, name)
    manifest = msgspec.structs.replace(base.manifest, least_memory=measure(base))
    (path / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))


def check_name(name: str) -> None:
    """Refuse (UsageError) what can't be the name of a base image."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' is no name for a base image: up to 100 of A-Z a-z 0-9 . _ + - that begin with a letter or digit"
        )


def find(images: Path, name: str) -> BaseImage:
    """The base image called `name`. Raises ConstruirError, saying which there are, and what command builds it."""
    check_name(name)
    try:
        return read((images / name).resolve(), name)
    except FileNotFoundError as error:
        there = ", ".join(names(images)) or "none"
        raise BaseImageError(
            f"base image '{name}' not found in {images}, where there is: {there}",
            f"construir image build {name}{_elsewhere(images)}{_appliance_has(images, name)}",
        ) from error


def _elsewhere(images: Path) -> str:
    """The option that names the directory, where commands would take another by themselves."""
    with suppress(ConfigError):
        if images == Config().images_path():
            return ""
    return f" --images {shlex.quote(str(images))}"


def _appliance_has(images: Path, name: str) -> str:
    """What to add to the message where this computer's appliance has an image that `images` lacks, for all to read."""
    theirs = _of_appliance()
    if images != theirs:
        with suppress(OSError, ConstruirError):
            if os.access(read((theirs / name).resolve(), name).root, os.R_OK):
                return f", or use those of this computer's appliance: --images {shlex.quote(str(theirs))}"
    return ""


def _of_appliance() -> Path:
    """Where this computer's appliance has its base images, by its configuration where that can be read."""
    with suppress(OSError, ConstruirError):
        if place := load(APPLIANCE_CONFIG).images.path:
            return Path(place)
    return APPLIANCE_IMAGES


def read(path: Path, name: str) -> BaseImage:
    """The base image in the directory `path`. Raises FileNotFoundError, ConstruirError if its manifest is damaged."""
    try:
        return BaseImage(path, name, schema.from_json((path / MANIFEST).read_bytes(), Manifest))
    except FileNotFoundError:
        raise
    except (OSError, msgspec.MsgspecError) as error:
        raise BaseImageError(
            f"base image '{name}': {path / MANIFEST} can't be read ({error})", f"construir image build --force {name}"
        ) from error


def names(images: Path) -> list[str]:
    """What base images there are, sorted."""
    return sorted(path.parent.name for path in images.glob(f"[!.]*/{MANIFEST}"))


def every(images: Path) -> list[BaseImage]:
    """All base images that can be read, by name."""
    return [find(images, name) for name in names(images)]


def hold(base: BaseImage) -> int:
    """A descriptor of the root disk: as long as it is open, here or in a child, this version is not removed.

    Raises ConstruirError if it just has been.
    """
    try:
        descriptor = os.open(base.root, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise _gone(base) from error
    locks.take(descriptor, shared=True)
    if not files.is_still(base.root, descriptor, levels=2):
        os.close(descriptor)
        raise _gone(base)
    return descriptor


def _gone(base: BaseImage) -> ConstruirError:
    return ConstruirError(f"base image '{base.name}': this version of it was removed; the next try takes the live one")


@contextmanager
def holding(base: BaseImage) -> Iterator[None]:
    """Hold a version for as long as the context lasts."""
    descriptor = hold(base)
    try:
        yield
    finally:
        os.close(descriptor)


def verify(base: BaseImage) -> None:
    """Read every part and compare its digest with the manifest. Raises ConstruirError naming the first that differs."""
    disks = {DISK: base.manifest.disk} if base.manifest.disk else {}
    for name in dict.fromkeys((*parts_in(base.path), *base.manifest.parts, *disks)):
        if measure(base.path / name) != {**base.manifest.parts, **disks}.get(name):
            raise BaseImageError(
                f"base image '{base.name}': {name} is not what was built", f"construir image build --force {base.name}"
            )


def parts_in(path: Path) -> list[str]:
    """The names of all parts of a base image in the directory `path`, those that every image has first."""
    below = (file for file in (path / UML).rglob("*") if file.is_file())
    return [*PARTS, *sorted(str(file.relative_to(path)) for file in below)]


def prove(base: BaseImage) -> BaseImage:
    """Like verify, but quick: what was proved once is read again only once a part has changed. It, with its marks."""
    # Before anything is read: what changes meanwhile is not what was proved.
    marks, memory = _marks(base), proof(base.path)
    if not memory.exists() or memory.read_text() != marks:
        verify(base)
        _note_proof(base, marks)
    return msgspec.structs.replace(base, marks=marks)


def demand_unchanged(base: BaseImage) -> None:
    """Raises BaseImageError where a part has changed since the image was proved, be it for a moment only.

    Of one that was never proved nothing is known.
    """
    if base.marks and _marks(base) != base.marks:
        raise BaseImageError(
            f"base image '{base.name}' has changed while a machine ran on it", f"construir image verify {base.name}"
        )


def note_proof(base: BaseImage) -> None:
    """Have prove take the image, as its files are now, for one that was read."""
    _note_proof(base, _marks(base))


def _note_proof(base: BaseImage, marks: str) -> None:
    with suppress(OSError):  # an ordinary user may run jobs on images that belong to root
        files.replace_durably(proof(base.path), marks.encode())


def _marks(base: BaseImage) -> str:
    return repr([files.mark(base.path / name) for name in (MANIFEST, *parts_in(base.path))])


def proof(path: Path) -> Path:
    """Where it is noted that the base image in the directory `path` was proved."""
    return path.with_name(f".proved-{path.name}")


def measure(path: Path) -> Part:
    """Size and SHA-256 of a file; of a missing one, neither."""
    try:
        return Part(path.stat().st_size, files.sha256(path))
    except FileNotFoundError:
        return Part(0, "")
