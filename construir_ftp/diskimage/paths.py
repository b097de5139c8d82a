"""Where a path leads in an ext image that is mounted somewhere: through its directories and symbolic links.

What lies outside of the image is not looked at, only named.
"""

import stat
from collections import deque
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
    """A path on its way. `place` is the directory come to, from the root of all; `inodes` those of the image; `left`
    are the names that lie ahead.
    """

    def __init__(self, image: Image, mount: tuple[bytes, ...], path: bytes) -> None:
        self._image, self._mount = image, mount
        self.left = deque(parts(path))
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
        for way in (self.place, self.inodes):
            if way:
                way.pop()
        self._enter()

    def step(self) -> Elsewhere | bool:
        """To the next name; false if there is no such name."""
        name = self.left.popleft()
        if name == b"..":
            self.leave()
            return True
        if not self.inodes:
            self.place.append(name)
            self._enter()
            is_above = self._mount[: len(self.place)] == tuple(self.place)
            return is_above or Elsewhere(b"/" + b"/".join([*self.place, *self.left]))
        inode = self._image.child(self.inodes[-1], name)
        if inode is None:
            return False
        if inode.kind == stat.S_IFLNK:
            return self._follow(tree.link_target(self._image, inode))
        self.place.append(name)
        self.inodes.append(inode)
        return True

    def _follow(self, target: bytes) -> bool:
        self._links += 1
        if target.startswith(b"/"):
            self.begin()
        self.left.extendleft(reversed(parts(target)))
        return self._links <= _MOST_LINKS


def parts(path: bytes) -> list[bytes]:
    """The names in a path."""
    return [name for name in path.split(b"/") if name not in (b"", b".")]


def follow(image: Image, path: bytes, mount: tuple[bytes, ...] = JOB) -> Inode | Elsewhere | None:
    """What an absolute path leads to where `image` is mounted at `mount`; None if there is no such thing.

    Raises ConstruirError where the image is damaged.
    """
    walk = _Walk(image, mount, path)
    while walk.left:
        ahead = walk.step()
        if isinstance(ahead, Elsewhere):
            return ahead
        if not ahead:
            return None
    return walk.inodes[-1] if walk.inodes else Elsewhere(b"/" + b"/".join(walk.place))
