"""The lock of a spool: whoever holds it runs the spool's jobs. Anyone may ask whether it is held, and disturbs nobody.

An open file description lock (F_OFD_SETLK, fcntl(2)): it ends with its holder, however that ends, and unlike flock(2)
can be asked about without being taken for a moment, in which a runner that starts would find it held.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# struct flock: type, whence, start, length (0: to the end), pid, which has to be 0 here.
_FLOCK = struct.Struct("hhqqi")


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the lock, made where it is missing. Raises BlockingIOError if it is held."""
    with path.open("a+b") as file:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        yield


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock, in this process or another."""
    try:
        with path.open("rb") as file:
            found = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except FileNotFoundError:
        return False
    kind: int = _FLOCK.unpack(found)[0]
    return kind != fcntl.F_UNLCK
