"""Directories for work whose outcome goes elsewhere, in /var/tmp if nothing else is said: nobody keeps one, and none is
left for long.

Each is locked (flock(2)) as long as whoever made it lives. One that is not was left by a kill -9, and goes when the
next is made. systemd-tmpfiles, too, leaves a locked directory alone, however old it is (tmpfiles.d(5)).
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Not /tmp, which is often memory: a job's disk can be large.
_PARENT = Path("/var/tmp")  # noqa: S108 - mkdtemp takes names that nobody has, for their owner only
_PREFIX = "construir-work-"


@contextmanager
def make(parent: Path = _PARENT, prefix: str = _PREFIX) -> Iterator[Path]:
    """A new, empty directory of one's own; on leaving the context it is gone with all that is in it."""
    _sweep(parent, prefix)
    place, lock = _make_locked(parent, prefix)
    try:
        yield place
    finally:
        shutil.rmtree(place)
        os.close(lock)


def _make_locked(parent: Path, prefix: str) -> tuple[Path, int]:
    while True:
        place = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        with suppress(FileNotFoundError):
            lock = _lock(place, fcntl.LOCK_EX)
            if place.exists():
                return place, lock
            os.close(lock)  # swept before it was locked


def _sweep(parent: Path, prefix: str) -> None:
    """Remove what this user's commands have left when they were killed."""
    for place in parent.glob(f"{prefix}*"):
        with suppress(OSError):  # somebody works in it, or it is gone
            if place.lstat().st_uid == os.geteuid():
                lock = _lock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
                try:
                    shutil.rmtree(place)
                finally:
                    os.close(lock)


def _lock(place: Path, how: int) -> int:
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
