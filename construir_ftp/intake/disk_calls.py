"""What is asked of the disk while an upload comes: room ahead of it, and an early start of the writing."""

import ctypes
import functools
import os

# linux/falloc.h, fcntl.h
_FALLOC_FL_KEEP_SIZE = 1
_SYNC_FILE_RANGE_WRITE = 2


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def set_aside(descriptor: int, offset_bytes: int, size_bytes: int) -> None:
    """Allocate room for a part of a file, which need not be there yet: its length stays (fallocate(2)). Raises OSError.

    What lies beyond the end of the file is given back by ftruncate(2).
    """
    offset, size = ctypes.c_int64(offset_bytes), ctypes.c_int64(size_bytes)
    _check(_libc().fallocate(descriptor, _FALLOC_FL_KEEP_SIZE, offset, size))


def start_writing(descriptor: int, offset_bytes: int, size_bytes: int) -> None:
    """Have the kernel begin to write a part of a file to the disk (sync_file_range(2)). Raises OSError.

    That promises nothing; but an fsync later finds less to do. Waits only where the disk has too much to do already.
    """
    offset, size = ctypes.c_int64(offset_bytes), ctypes.c_int64(size_bytes)
    _check(_libc().sync_file_range(descriptor, offset, size, _SYNC_FILE_RANGE_WRITE))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
