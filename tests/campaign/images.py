"""A base image of the appliance's own, which is damaged and mended: the host's stays as it is."""

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

from construir_ftp.image import baseimage
from tests.support import images

# What a machine boots from, and what says what that should be.
_PARTS = (baseimage.ROOT, baseimage.KERNEL, baseimage.INITRD, baseimage.MANIFEST)
# So much of a part is overwritten, or cut off, at most.
_MOST_BYTES = 2**20

Mend = Callable[[], object]


class Images:
    """A directory of base images in `place` with a copy of one of them. At most one part of it is damaged at a time."""

    def __init__(self, place: Path, original: Path) -> None:
        self.path = place / "images"
        self._there = self.path / original.name
        self._there.mkdir(parents=True)
        for file in filter(Path.is_file, original.iterdir()):
            if file.name == baseimage.DISK:  # large, and read by no machine
                (self._there / file.name).symlink_to(file.resolve())
            else:
                subprocess.run(["cp", "--sparse=always", "--reflink=auto", file, self._there], check=True)
        self._mend: Mend | None = None

    def damage(self, chance: random.Random) -> str:
        """Damage a part of it in one of four ways, which it says."""
        part = self._there / chance.choice(_PARTS)
        way = chance.choice((_overwrite, _cut, _remove, _replace))
        self._mend = way(part, chance)
        return f"{part.name}, {way.__name__.removeprefix('_')}"

    def mend(self) -> None:
        """Have it be again what it was."""
        if self._mend is not None:
            self._mend()
            self._mend = None


def _overwrite(part: Path, chance: random.Random) -> Mend:
    """Other bytes in the midst of the file that machines have open."""
    at = chance.randrange(part.stat().st_size)
    before = _read(part, chance.randint(1, _MOST_BYTES), at)
    _write(part, chance.randbytes(len(before)), at)
    return lambda: _write(part, before, at)


def _cut(part: Path, chance: random.Random) -> Mend:
    """Its end is missing."""
    size_bytes = part.stat().st_size
    at = size_bytes - chance.randint(1, min(size_bytes, _MOST_BYTES))
    before = _read(part, size_bytes - at, at)
    os.truncate(part, at)
    return lambda: _write(part, before, at)


def _remove(part: Path, _chance: random.Random) -> Mend:
    """It is not there."""
    aside = part.rename(part.with_name(f".{part.name}"))
    return lambda: aside.replace(part)


def _replace(part: Path, chance: random.Random) -> Mend:
    """Another file is in its place."""
    mend = _remove(part, chance)
    part.write_bytes(images.noise(_MOST_BYTES))
    return mend


def _read(part: Path, size_bytes: int, at: int) -> bytes:
    with part.open("rb") as file:
        return os.pread(file.fileno(), size_bytes, at)


def _write(part: Path, content: bytes, at: int) -> None:
    with part.open("r+b") as file:
        os.pwrite(file.fileno(), content, at)
