"""What has to be said to a file system so that it keeps its word: fsync, atomic writes, locks, holes, free space, and
directories for work whose outcome goes elsewhere.

Nothing here knows what a job is.
"""

import ctypes
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

# linux/falloc.h, fcntl.h
_FALLOC_FL_KEEP_SIZE = 1
_SYNC_FILE_RANGE_WRITE = 2

# A kernel's clock ticks a hundred times a second at least (CONFIG_HZ).
_TICK_NS = 20_000_000

_libc = ctypes.CDLL(None, use_errno=True)

_BLOCK = 64 * 1024
_ZEROS = bytes(_BLOCK)


def fsync(path: Path) -> None:
    """Force a file's data, or a directory's entries, to stable storage (fsync(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Create `path`, which must not exist, with `content`; on return the content is on stable storage.

    Its mode is `mode`, whatever the umask says.
    The entry in its directory is not: fsync that once everything is in it.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_durably(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Give `path` new content in one step: a reader, or a crash, sees the old or the new, never a part."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_durably(draft, content, mode)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    fsync(path.parent)


def replace(path: Path, content: bytes) -> None:
    """Give `path` new content in one step for readers; after a crash it may be old, new or empty."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[int]:
    """An exclusive flock(2) on a file or directory; gives its descriptor.

    It ends with this process, unless a child inherits the descriptor: then with the last that has it.

    What is to be replaced by a rename has to be locked by its directory: the lock stays with the file that was there.
    Without `wait` raises BlockingIOError where it is locked.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield descriptor
    finally:
        os.close(descriptor)


def write_sparse(source: IO[bytes], path: Path, size_bytes: int) -> None:
    """Create `path` with `size_bytes` from `source`, leaving a hole wherever 64 KiB of it are zero.

    Raises EOFError if the source ends early; a longer source is read no further than it is needed.
    """
    with path.open("xb") as file:
        left = size_bytes
        while left:
            block = source.read(min(_BLOCK, left))
            if not block:
                raise EOFError(f"{left} bytes short of {size_bytes}")
            if block == _ZEROS:
                file.seek(len(block), os.SEEK_CUR)
            else:
                file.write(block)
            left -= len(block)
        file.truncate(size_bytes)


def put(source: Path, target: Path, offset_bytes: int) -> None:
    """Copy a file into another one, from an offset on, where that holds nothing but zeros; zeros stay holes."""
    with source.open("rb") as file, target.open("r+b") as into:
        _copy_data(file, 0, source.stat().st_size, into, offset_bytes)


def take(source: Path, offset_bytes: int, size_bytes: int, target: Path) -> None:
    """Create `target` with a part of a file; zeros become holes. Raises EOFError if the file has no such part."""
    if offset_bytes + size_bytes > source.stat().st_size:
        raise EOFError(f"{source} ends before {offset_bytes + size_bytes}")
    with source.open("rb") as file, target.open("xb") as into:
        _copy_data(file, offset_bytes, size_bytes, into, 0)
        into.truncate(size_bytes)


def _copy_data(file: IO[bytes], start: int, size_bytes: int, into: IO[bytes], offset_bytes: int) -> None:
    """Copy a part of a file to an offset of another one, in pieces of up to 64 KiB; what is zero, is left out."""
    for at, block in _data(file, start, start + size_bytes):
        if block != _ZEROS[: len(block)]:
            into.seek(offset_bytes + at - start)
            into.write(block)


def _data(file: IO[bytes], at: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Where there is data in a part of a file, and what, in pieces of up to 64 KiB; without its holes (lseek(2))."""
    while at < end:
        try:
            at = os.lseek(file.fileno(), at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            raise
        if at < end:
            yield at, os.pread(file.fileno(), min(_BLOCK, end - at), at)
        at += _BLOCK


def copy(source: Path, target: Path) -> None:
    """Create `target` with the content of `source`; zeros become holes. An OSError leaves nothing of it."""
    try:
        take(source, 0, source.stat().st_size, target)
    except OSError:
        target.unlink(missing_ok=True)
        raise


def sha256(path: Path) -> str:
    """A file's SHA-256, in hexadecimal. Holes count as the zeros they are, and are not read: that takes longer."""
    digest, end = hashlib.sha256(), 0
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        for at, block in _data(file, 0, size_bytes):
            _digest_zeros(digest, at - end)
            digest.update(block)
            end = at + len(block)
        _digest_zeros(digest, size_bytes - end)
    return digest.hexdigest()


def _digest_zeros(digest: "hashlib._Hash", count: int) -> None:
    for left in range(count, 0, -_BLOCK):
        digest.update(_ZEROS[: min(_BLOCK, left)])


def remove(path: Path) -> None:
    """Remove a file, a symbolic link (never what it points to), or a directory and all below it."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)


def allocated_bytes(path: Path) -> int:
    """Room a file takes, holes not counted (st_blocks is in units of 512 bytes, stat(2))."""
    return path.lstat().st_blocks * 512


def tree_bytes(path: Path) -> int:
    """Room a directory and all below it take, holes not counted."""
    return sum(allocated_bytes(entry) for entry in [path, *path.rglob("*")])


def free_bytes(path: Path) -> int:
    """Bytes an unprivileged process may still write on the file system that holds `path`."""
    return shutil.disk_usage(path).free


def changed_ns(directory: Path) -> int | None:
    """When something came into a directory or left it, the same number while nothing does; None where that is so short
    ago that a change after this one may not show: its time is that of the clock's last tick.
    """
    changed = directory.stat().st_mtime_ns
    return changed if time.time_ns() - changed > _TICK_NS else None


def set_aside(descriptor: int, offset_bytes: int, size_bytes: int) -> None:
    """Allocate room for a part of a file, which need not be there yet: its length stays (fallocate(2)). Raises OSError.

    What lies beyond the end of the file is given back by ftruncate(2).
    """
    offset, size = ctypes.c_int64(offset_bytes), ctypes.c_int64(size_bytes)
    _check(_libc.fallocate(descriptor, _FALLOC_FL_KEEP_SIZE, offset, size))


def start_writing(descriptor: int, offset_bytes: int, size_bytes: int) -> None:
    """Have the kernel begin to write a part of a file to the disk (sync_file_range(2)). Raises OSError.

    That promises nothing; but an fsync later finds less to do. Waits only where the disk has too much to do already.
    """
    offset, size = ctypes.c_int64(offset_bytes), ctypes.c_int64(size_bytes)
    _check(_libc.sync_file_range(descriptor, offset, size, _SYNC_FILE_RANGE_WRITE))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


# -- scratch directories -----------------------------------------------------------------------------------------

# Not /tmp, which is often memory: a job's disk can be large.
_SCRATCH = Path("/var/tmp")  # noqa: S108 - mkdtemp takes names that nobody has, for their owner only
_SCRATCH_PREFIX = "construir-work-"


@contextmanager
def scratch_directory(parent: Path = _SCRATCH, prefix: str = _SCRATCH_PREFIX) -> Iterator[Path]:
    """A new, empty directory of one's own; on leaving the context it is gone with all that is in it.

    It is locked (flock(2)) as long as whoever made it lives. One that is not was left by a kill -9, and goes when the
    next is made. systemd-tmpfiles, too, leaves a locked directory alone, however old it is (tmpfiles.d(5)).
    """
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
