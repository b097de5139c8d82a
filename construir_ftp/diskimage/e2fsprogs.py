"""e2fsprogs at work on an ext image, in a jail: the only programs that write to a file system that came from a job.

What they need is the image, and nothing else; exit status from e2fsck(8): 1 and 2 say that errors were corrected.
"""

import os
from pathlib import Path

import msgspec

from construir_ftp.diskimage import extfs
from construir_ftp.errors import CommandError, ConstruirError
from construir_ftp.jail import cell, tools

_TIMEOUT_S = 2 * 3600
_MEMORY_BYTES = 2**30
_STEPS = 3
# Two bitmaps, and a superblock with some descriptors.
_BLOCKS_OF_A_GROUP = 5


def repair(image: Path) -> None:
    """Let e2fsck replay the journal, or mend what a machine left that was switched off. Raises ConstruirError."""
    with image.open("rb") as file:
        if not extfs.Image(file).ext.needs_repair:
            return
    check(image)


def grow(image: Path, free_bytes: int, most_bytes: int) -> None:
    """Make `image` longer until so much of it is free, but no longer than `most_bytes`. Raises ConstruirError, OSError.

    The new part is a hole, so it takes no room before it is written to. Growing costs inode tables, which can't be
    foretold to the block: hence several steps.
    """
    for step in range(_STEPS):
        size_bytes = _needed_bytes(image, free_bytes, most_bytes)
        if size_bytes <= image.stat().st_size:
            return
        if step == 0:
            check(image)  # resize2fs(8) wants it so
        os.truncate(image, size_bytes)
        if status := run(image, "resize2fs", "-f"):
            raise ConstruirError(f"the image's file system can't be made larger (exit status {status} from resize2fs)")


def _needed_bytes(image: Path, free_bytes: int, most_bytes: int) -> int:
    """The size at which so much should be free; 0 if it is already."""
    with image.open("rb") as file:
        ext = extfs.Image(file).ext
    missing = -(-free_bytes // ext.block_bytes) - ext.free_blocks
    if missing <= 0:
        return 0
    groups = missing // ext.blocks_per_group + 1
    tables = groups * (-(-ext.inodes_per_group * ext.inode_bytes // ext.block_bytes) + _BLOCKS_OF_A_GROUP)
    return min(ext.blocks + missing + tables, most_bytes // ext.block_bytes) * ext.block_bytes


def check(image: Path) -> None:
    """Let e2fsck look at all of a file system, and correct what is wrong. Raises ConstruirError where it can't."""
    status = run(image, "e2fsck", "-f", "-y")
    if status & ~3:
        raise ConstruirError(f"the image's file system is beyond repair (exit status {status} from e2fsck)")


def drop_journal(image: Path) -> None:
    """Make a file system one without a journal, which was checked before. Raises ConstruirError."""
    if status := run(image, "tune2fs", "-O", "^has_journal"):
        raise ConstruirError(f"the image's journal can't be taken off (exit status {status} from tune2fs)")


def run(image: Path, *argv: str, readable: tuple[Path, ...] = ()) -> int:
    """The exit status of a program that is given the image as its last argument, and can't make it longer."""
    image = image.resolve()  # a jail has another working directory
    walls = cell.reader(memory_bytes=_MEMORY_BYTES, cpu_s=_TIMEOUT_S, writable=image, readable=readable)
    # resize2fs wants to see for itself that the image isn't mounted.
    walls = msgspec.structs.replace(walls, proc=True)
    try:
        status = tools.run(walls, [*argv, image], _TIMEOUT_S).status
    except CommandError as late:
        raise ConstruirError(f"the image's file system: {argv[0]} was not done in time") from late
    os.chown(image, os.geteuid(), os.getegid())
    return status
