"""The tree of files in an ext image that came back from a job, so that following it leads nowhere else, and ends.

Whoever gets a path from here may join it to a directory of his own: no name has a slash or a NUL in it, none comes
twice in one directory, and no directory is in two places.
"""

import os
import stat
from collections.abc import Callable, Iterator

from construir_ftp.diskimage import extfs
from construir_ftp.errors import ConstruirError

# shutil.rmtree, which may have to clean up, takes a level of Python's stack for each (1000).
_MOST_LEVELS = 500


def _always(_path: bytes) -> bool:
    return True


def walk(
    image: extfs.Image, top: extfs.Inode, enters: Callable[[bytes], bool] = _always
) -> Iterator[tuple[bytes, extfs.Inode]]:
    """The path below the directory `top` of everything in it, and what it is; a directory comes before its content.

    What is in directories that `enters` says no to is left out. Raises ConstruirError where the image is damaged.
    """
    seen = {extfs.ROOT, top.number}
    directories = [(b"", top)]
    for above, parent in directories:  # grows meanwhile
        for name, number in _listed(image, parent):
            inode, path = image.inode(number), above + name
            if inode.kind == stat.S_IFDIR and enters(path):
                _check_directory(number in seen, path.count(b"/") + 1)
                seen.add(number)
                directories.append((path + b"/", inode))
            yield path, inode


def link_target(image: extfs.Image, inode: extfs.Inode) -> bytes:
    """Where a symbolic link points, which may be anywhere. Raises ConstruirError."""
    return _whole(image.link_target(inode))


def _check_directory(seen: bool, levels: int) -> None:
    if seen:
        raise ConstruirError("the image is damaged: a directory in it is in two places")
    if levels > _MOST_LEVELS:
        raise ConstruirError(f"directories in the image are nested more than {_MOST_LEVELS} deep")


def _listed(image: extfs.Image, parent: extfs.Inode) -> Iterator[tuple[bytes, int]]:
    """What is in a directory, no name leading out of it and none twice."""
    if parent.kind != stat.S_IFDIR:
        raise ConstruirError("the image is damaged: it has no root directory")
    seen = set()
    for name, number in image.entries(parent):
        if b"/" in name or name in seen:
            raise ConstruirError(f"the image is damaged: a file in it can't be called {os.fsdecode(name)!a}")
        seen.add(_whole(name))
        yield name, number


def _whole(text: bytes) -> bytes:
    if not text or b"\0" in text:
        raise ConstruirError("the image is damaged: a name or a symbolic link in it is empty or has a NUL")
    return text
