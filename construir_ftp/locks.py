"""Locks of files that hold among all processes, and among all hosts, that share a file system; and directories that
are gone when they are left, and gone soon when nobody could leave them.

An open file description lock (F_OFD_SETLK, fcntl(2)) of a file's first byte. It ends with its holder, however that
ends; a child that inherits the descriptor holds it, too. NFS asks its server for it (nfs(5)), where a flock(2) of a
directory is known to no other host. As everywhere, whoever locks exclusively has to have the file open for writing.

QEMU locks other bytes of its disks, and is not disturbed.

A directory is NAME, and is held by the lock NAME.lock, which is there before it and after it. One that nobody holds was
left by a kill -9.
"""

import fcntl
import os
import secrets
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from construir_ftp import files

# struct flock: type, whence, start, length, pid, which has to be 0 here.
_FLOCK = struct.Struct("hhqqi")


def take(descriptor: int, *, shared: bool = False, wait: bool = True) -> None:
    """Lock a file, until its descriptor is closed everywhere. Without `wait` raises BlockingIOError if it is locked."""
    kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, _first_byte(kind))


@contextmanager
def held(path: Path, *, wait: bool = True) -> Iterator[int]:
    """Hold the lock that a file is, made where it is missing; gives its descriptor. Only who holds it may remove it.

    What is to be replaced by a rename can't be locked itself: the lock would stay with the file that was there. Without
    `wait` raises BlockingIOError if it is held.
    """
    while True:
        files.ask_anew(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            take(descriptor, wait=wait)
            if files.is_still(path, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)


@contextmanager
def alone(path: Path, *, wait: bool = True) -> Iterator[int]:
    """The same, of a lock that is gone when nobody holds it or waits for it."""
    with held(path, wait=wait) as descriptor:
        try:
            yield descriptor
        finally:
            path.unlink(missing_ok=True)


def is_held(path: Path) -> bool:
    """Whether somebody has locked a file, in this process or another; asking disturbs nobody."""
    try:
        with path.open("rb") as file:
            found = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _first_byte(fcntl.F_WRLCK))
    except FileNotFoundError:
        return False
    kind: int = _FLOCK.unpack(found)[0]
    return kind != fcntl.F_UNLCK


def _first_byte(kind: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, 0, 1, 0)


# -- directories -------------------------------------------------------------------------------------------------

# Not /tmp, which is often memory: a job's disk can be large.
_SCRATCH = Path("/var/tmp")  # noqa: S108 - names that nobody can know, and a directory for its owner only
_SCRATCH_PREFIX = "construir-scratch-"
_LOCK = ".lock"


@contextmanager
def scratch_directory(parent: Path = _SCRATCH, prefix: str = _SCRATCH_PREFIX) -> Iterator[Path]:
    """A new, empty directory of one's own; on leaving the context it is gone with all that is in it.

    What this user's commands have left there when they were killed goes first.
    """
    _sweep(parent, prefix)
    with claimed(parent, prefix) as place:
        try:
            yield place
        finally:
            shutil.rmtree(place)


@contextmanager
def claimed(parent: Path, prefix: str) -> Iterator[Path]:
    """A new, empty directory that is held as long as the context lasts; what is left of it then stays."""
    place = parent / f"{prefix}{secrets.token_hex(8)}"
    with alone(_lock_of(place)):
        place.mkdir(mode=0o700)
        yield place


@contextmanager
def abandoned(place: Path) -> Iterator[None]:
    """Hold the directory of somebody who was killed, to remove it. Raises BlockingIOError where its maker lives."""
    with alone(_lock_of(place), wait=False):
        yield


def directories(parent: Path, prefix: str) -> list[Path]:
    """Every directory there under such a name, whoever holds it, or nobody."""
    return [entry for entry in parent.glob(f"{prefix}*") if entry.is_dir() and not entry.is_symlink()]


def sweep(parent: Path, prefix: str) -> None:
    """Remove the locks whose holders were killed. Directories stay."""
    for lock in parent.glob(f"{prefix}*{_LOCK}"):
        with suppress(OSError), alone(lock, wait=False):  # somebody holds it, or it is another user's
            pass


def is_claimed(place: Path) -> bool:
    """Whether its maker lives."""
    return is_held(_lock_of(place))


def _lock_of(place: Path) -> Path:
    return place.with_name(f"{place.name}{_LOCK}")


def _sweep(parent: Path, prefix: str) -> None:
    for entry in parent.glob(f"{prefix}*"):
        place = entry.with_name(entry.name.removesuffix(_LOCK))
        with suppress(OSError):  # somebody works in it, or it is gone
            if entry.lstat().st_uid == os.geteuid() and not place.is_symlink():
                with abandoned(place):
                    shutil.rmtree(place, ignore_errors=True)
