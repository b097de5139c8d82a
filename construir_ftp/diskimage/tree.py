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


class TooDeepError(ConstruirError):
    """A directory is nested deeper than is followed: a bound of ours, and no damage."""


Broken = Callable[[bytes, ConstruirError], None]


def _always(_path: bytes) -> bool:
    return True


def _raise(_path: bytes, error: ConstruirError) -> None:
    raise error


def walk(
    image: extfs.Image,
    top: extfs.Inode,
    enters: Callable[[bytes], bool] = _always,
    broken: Broken = _raise,
) -> Iterator[tuple[bytes, extfs.Inode]]:
    """The path below the directory `top` of everything in it, and what it is; a directory comes before its content.

    What is in directories that `enters` says no to is left out. Where the image is damaged, `broken` is told the path,
    empty for `top`, and why; if it raises nothing, that one is left out, and what else is in the directory comes.
    By itself it raises ConstruirError.
    """
    seen = {extfs.ROOT, top.number}
    directories = [(b"", top)]
    for above, parent in directories:  # grows meanwhile
        for name, number in _listed(image, parent, above, broken):
            path = above + name
            try:
                inode = image.inode(number)
                enter = inode.kind == stat.S_IFDIR and enters(path)
                if enter:
                    _check_directory(number in seen, path.count(b"/") + 1)
            except ConstruirError as error:
                broken(path, error)
                continue
            if enter:
                seen.add(number)
                directories.append((path + b"/", inode))
            yield path, inode


def link_target(image: extfs.Image, inode: extfs.Inode) -> bytes:
    """Where a symbolic link points, which may be anywhere. Raises ConstruirError."""
    target = image.link_target(inode)
    if not target or b"\0" in target:
        raise ConstruirError("the image is damaged: a symbolic link in it is empty or has a NUL")
    return target


def _check_directory(seen: bool, levels: int) -> None:
    if seen:
        raise ConstruirError("the image is damaged: a directory in it is in two places")
    if levels > _MOST_LEVELS:
        raise TooDeepError(f"directories in the image are nested more than {_MOST_LEVELS} deep")


def _listed(image: extfs.Image, parent: extfs.Inode, above: bytes, broken: Broken) -> Iterator[tuple[bytes, int]]:
    """What is in a directory, no name leading out of it and none twice."""
    seen: set[bytes] = set()
    for name, number in _entries(image, parent, above, broken):
        if name and b"\0" not in name and b"/" not in name and name not in seen:
            seen.add(name)
            yield name, number
        else:
            broken(
                above + name,
                ConstruirError(f"the image is damaged: a file in it can't be called {os.fsdecode(name)!a}"),
            )


def _entries(image: extfs.Image, parent: extfs.Inode, above: bytes, broken: Broken) -> Iterator[tuple[bytes, int]]:
    if parent.kind != stat.S_IFDIR:
        broken(above, ConstruirError("the image is damaged: it has no root directory"))
        return
    try:
        yield from image.entries(parent)
    except ConstruirError as error:
        broken(above.rstrip(b"/"), error)
