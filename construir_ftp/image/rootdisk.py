"""The files on a root disk by their paths, read without mounting it: symbolic links lead where they would lead in the
machine, and never out of the disk.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from construir_ftp.diskimage import extfs, tree
from construir_ftp.diskimage.extfs import Inode
from construir_ftp.errors import ConstruirError

# As many as the kernel follows (path_resolution(7)).
_MOST_LINKS = 40
# The largest file that is read whole: a kernel, a library, dpkg's database.
_MOST_BYTES = 256 * 2**20


class RootDisk:
    """An open ext image, and what is in it. Raises ConstruirError wherever it is damaged."""

    def __init__(self, image: extfs.Image) -> None:
        self._image = image
        self._listed: dict[int, dict[bytes, int]] = {}

    def find(self, path: str) -> Inode | None:
        """What an absolute path leads to, if there is something."""
        found = self._walk(path)
        return found[-1] if found else None

    def names(self, directory: str) -> list[str]:
        """What is in a directory, sorted; nothing if it is not there."""
        inode = self.find(directory)
        return sorted(map(os.fsdecode, self._entries(inode))) if inode and inode.kind == stat.S_IFDIR else []

    def read(self, path: str) -> bytes:
        """All that is in a file. Raises ConstruirError, saying which, if there is none, or an enormous one."""
        inode = self.find(path)
        if inode is None or inode.kind != stat.S_IFREG:
            raise ConstruirError(f"there is no file {path} on the root disk")
        if inode.size_bytes > _MOST_BYTES:
            raise ConstruirError(f"the file {path} on the root disk is longer than {_MOST_BYTES >> 20} MiB")
        return self._image.text(inode)

    def text(self, path: str) -> str:
        """The same as text; nothing if there is no such file."""
        inode = self.find(path)
        return self.read(path).decode(errors="replace") if inode and inode.kind == stat.S_IFREG else ""

    def _entries(self, directory: Inode) -> dict[bytes, int]:
        if directory.number not in self._listed:
            self._listed[directory.number] = dict(self._image.entries(directory))
        return self._listed[directory.number]

    def _walk(self, path: str) -> list[Inode]:
        """The inodes on the way from the root directory to where `path` leads; nothing if it leads nowhere."""
        top = self._image.inode(extfs.ROOT)
        way, waiting, links = [top], _steps(os.fsencode(path)), 0
        while waiting:
            name = waiting.pop()
            if way[-1].kind != stat.S_IFDIR:
                return []
            if name == b"..":
                way = way[:-1] or [top]
                continue
            number = self._entries(way[-1]).get(name)
            if number is None:
                return []
            inode = self._image.inode(number)
            if inode.kind != stat.S_IFLNK:
                way.append(inode)
                continue
            links += 1
            if links > _MOST_LINKS:
                return []
            target = tree.link_target(self._image, inode)
            way = [top] if target.startswith(b"/") else way
            waiting += _steps(target)
        return way


def _steps(path: bytes) -> list[bytes]:
    return [name for name in reversed(path.split(b"/")) if name not in (b"", b".")]


@contextmanager
def opened(path: Path) -> Iterator[RootDisk]:
    """The root disk in a file."""
    with path.open("rb") as file:
        yield RootDisk(extfs.Image(file))
