"""Where a path leads in an ext image that is mounted somewhere: through its directories and symbolic links.

What lies outside of the image is not looked at, only named.
"""

import stat
from typing import NamedTuple

from construir_ftp.diskimage import extfs, tree
from construir_ftp.diskimage.extfs import Image, Inode

# As the kernel has it (path_resolution(7)).
_MOST_LINKS = 40

JOB = (b"job",)


class Elsewhere(NamedTuple):
    """A path that leads out of the image, absolute."""

    path: bytes


class _Walk:
    """A path on its way. `place` is the directory come to, from the root of all; `inodes` those of the image."""

    def __init__(self, image: Image, mount: tuple[bytes, ...]) -> None:
        self._image, self._mount = image, mount
        self.place: list[bytes] = []
        self.inodes: list[Inode] = []
        self._links = 0
        self.begin()

    def begin(self) -> None:
        """Go to the root of all."""
        self.place, self.inodes = [], []
        self._enter()

    def _enter(self) -> None:
        if tuple(self.place) == self._mount:
            self.inodes = [self._image.inode(extfs.ROOT)]

    def leave(self) -> None:
        """One directory up, where there is one."""
        self.place = self.place[:-1]
        self.inodes = self.inodes[:-1]
        self._enter()

    def step(self, name: bytes, left: list[bytes]) -> list[bytes] | Elsewhere | None:
        """To `name`; what is left of the path then. None if there is no such name."""
        if not self.inodes:
            self.place.append(name)
            self._enter()
            is_above = self._mount[: len(self.place)] == tuple(self.place)
            return left if is_above else Elsewhere(b"/" + b"/".join([*self.place, *left]))
        inode = self._image.child(self.inodes[-1], name)
        if inode is None:
            return None
        if inode.kind == stat.S_IFLNK:
            return self._follow(tree.link_target(self._image, inode), left)
        self.place.append(name)
        self.inodes.append(inode)
        return left

    def _follow(self, target: bytes, left: list[bytes]) -> list[bytes] | None:
        self._links += 1
        if self._links > _MOST_LINKS:
            return None
        if target.startswith(b"/"):
            self.begin()
        return parts(target) + left


def parts(path: bytes) -> list[bytes]:
    """The names in a path."""
    return [name for name in path.split(b"/") if name not in (b"", b".")]


def follow(image: Image, path: bytes, mount: tuple[bytes, ...] = JOB) -> Inode | Elsewhere | None:
    """What an absolute path leads to where `image` is mounted at `mount`; None if there is no such thing.

    Raises ConstruirError where the image is damaged.
    """
    walk = _Walk(image, mount)
    left = parts(path)
    while left:
        name, *left = left
        if name == b"..":
            walk.leave()
            continue
        ahead = walk.step(name, left)
        if not isinstance(ahead, list):
            return ahead
        left = ahead
    return walk.inodes[-1] if walk.inodes else Elsewhere(b"/" + b"/".join(walk.place))
