"""e2fsprogs at work on an ext image, in a jail: the only programs that write to a file system that came from a job.

What they need is the image, and nothing else; exit status from e2fsck(8): 1 and 2 say that errors were corrected.
"""

import os
from pathlib import Path

import msgspec

from construir_ftp.diskimage import extfs
from construir_ftp.errors import CommandError, JobError, one_line
from construir_ftp.jail import cell, tools
from construir_ftp.jail.tools import Ended
from construir_ftp.units import in_words

_TIMEOUT_S = 2 * 3600
_QUOTED_CHARACTERS = 200
# e2fsck(8): errors were corrected, and the machine, if it were one that had it mounted, should be rebooted.
_CORRECTED = 3
_MEMORY_BYTES = 2**30
_STEPS = 3
# Two bitmaps, and a superblock with some descriptors.
_BLOCKS_OF_A_GROUP = 5


def repair(image: Path) -> bool:
    """Let e2fsck replay the journal, or mend what a machine left that was switched off; whether there was such.

    Raises ConstruirError where it is no ext file system any more, JobError where it can't be mended.
    """
    with image.open("rb") as file:
        if not extfs.Image(file).ext.needs_repair:
            return False
    check(image)
    return True


def grow(image: Path, free_bytes: int, most_bytes: int) -> None:
    """Make `image` longer until so much of it is free, but no longer than `most_bytes`; it is sound on return.

    The new part is a hole, so it takes no room before it is written to. Growing costs inode tables, which can't be
    foretold to the block: hence several steps. Raises JobError, with the words of the tool, where it can't be made
    larger: not every file system that the kernel takes is one that resize2fs(8) can grow. Raises OSError.
    """
    has_grown = False
    for step in range(_STEPS):
        _count_free_blocks(image)
        size_bytes = _needed_bytes(image, free_bytes, most_bytes)
        if size_bytes <= image.stat().st_size:
            break
        if step == 0:
            check(image)  # resize2fs(8) wants it so
        os.truncate(image, size_bytes)
        _demand(run(image, "resize2fs", "-f"), "the image's file system can't be made larger")
        has_grown = True
    if has_grown:
        check(image)  # and doesn't always leave it so


def shrink(image: Path, size_bytes: int) -> None:
    """Make `image`, which was checked before, so long. Raises JobError where that is too short for what is in it."""
    blocks = size_bytes // 1024
    _demand(run(image, "resize2fs", "-f", size=f"{blocks}K"), "the image's file system can't be made smaller")
    os.truncate(image, blocks * 1024)


def _demand(ended: Ended, what: str) -> None:
    if ended.status:
        words = one_line(ended.words[-_QUOTED_CHARACTERS:]) or "no words"
        raise JobError(f"{what} (exit status {ended.status} from {ended.argv[0]}: {words})")


def _count_free_blocks(image: Path) -> None:
    """See that the superblock has their number. The kernel counts them itself, and mounts it whatever that says; and
    resize2fs(8) leaves a wrong one with bigalloc.
    """
    with image.open("rb") as file:
        ext = extfs.Image(file).ext
    if ext.needs_repair or ext.free_blocks >= ext.blocks:
        check(image)


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
    """Let e2fsck look at all of a file system, and correct what is wrong. Raises JobError where it can't."""
    ended = run(image, "e2fsck", "-f", "-y")
    if ended.status & ~_CORRECTED:
        _demand(ended, "the image's file system is beyond repair")


def drop_journal(image: Path) -> None:
    """Make a file system one without a journal, which was checked before. Raises JobError."""
    _demand(run(image, "tune2fs", "-O", "^has_journal"), "the image's journal can't be taken off")


def run(image: Path, *argv: str, readable: tuple[Path, ...] = (), size: str | None = None) -> Ended:
    """How a program ended that is given the image as its last argument but `size`, and can't make it longer.

    Raises JobError if it was not done in time.
    """
    image = image.resolve()  # a jail has another working directory
    walls = cell.reader(memory_bytes=_MEMORY_BYTES, cpu_s=_TIMEOUT_S, writable=image, readable=readable)
    # resize2fs wants to see for itself that the image isn't mounted.
    walls = msgspec.structs.replace(walls, proc=True)
    try:
        ended = tools.run(walls, [*argv, image, *([size] if size else [])], _TIMEOUT_S)
    except CommandError as late:
        raise JobError(f"the image's file system: {argv[0]} was not done after {in_words(_TIMEOUT_S)}") from late
    os.chown(image, os.geteuid(), os.getegid())
    return ended
