"""What has to be said to a file system so that it keeps its word: fsync, atomic writes, holes, free space, and what
other hosts have done to it.

Nothing here knows what a job is.
"""

import ctypes
import errno
import glob
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

# What is written has its name within seconds.
_DRAFT, _DRAFT_S = re.compile(r"\..+\.[0-9a-f]{8,16}"), 3600.0
# A kernel's clock ticks a hundred times a second at least (CONFIG_HZ).
_TICK_NS = 20_000_000

# linux/magic.h, and what ZFS and bcachefs say: ext2 to ext4, XFS, Btrfs, tmpfs, overlay, F2FS, ZFS, bcachefs.
_LOCAL_KINDS = {0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0x794C7630, 0xF2F52010, 0x2FC12FC1, 0xCA451A4E}

# What neither macOS nor Windows has is not asked for there: contributors have files of their own.
_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)

# What NFS calls a file that is deleted and open (the kernel's fs/nfs/unlink.c).
_STILL_OPEN = ".nfs"

_BLOCK = 64 * 1024
_ZEROS = bytes(_BLOCK)


def fsync(path: Path) -> None:
    """Force a file's data, or a directory's entries, to stable storage (fsync(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_durably(source: Path, target: Path) -> None:
    """Rename a directory, or a file; on return that is on stable storage.

    It is looked at first: of a directory that another host has moved since this one saw it NFS has to correct its
    picture, which it can't in the midst of a rename, and fails with ESTALE (the kernel's fs/dcache.c, __d_unalias).
    """
    with suppress(FileNotFoundError):
        source.lstat()
    source.rename(target)
    fsync(target.parent)
    fsync(source.parent)


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
    """Give `path` new content in one step: a reader, or a crash, sees the old or the new, never a part.

    What another writer of `path` left that was killed goes before.
    """
    sweep_drafts(path.parent, path.name)
    with draft(path) as fresh:
        write_durably(fresh, content, mode)
        fresh.replace(path)
    fsync(path.parent)


def replace(path: Path, content: bytes) -> None:
    """Give `path` new content in one step for readers; after a crash it may be old, new or empty."""
    with draft(path) as fresh:
        fresh.write_bytes(content)
        fresh.replace(path)


@contextmanager
def draft(path: Path) -> Iterator[Path]:
    """Where to write what is then renamed to `path`, or linked to it; on leaving the context nothing is there."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield fresh
    finally:
        fresh.unlink(missing_ok=True)


def sweep_drafts(directory: Path, name: str = "", age_s: float = _DRAFT_S) -> None:
    """Remove drafts of killed writers, older than `age_s`: of the file of that name, or of every one there."""
    oldest_s = time.time() - age_s
    for entry in directory.glob(f".{glob.escape(name) or '*'}.*"):
        with suppress(FileNotFoundError):  # renamed meanwhile
            if _DRAFT.fullmatch(entry.name) and entry.lstat().st_mtime <= oldest_s:
                entry.unlink()


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
    """Remove a file, a symbolic link (never what it points to), or a directory and all below it.

    On NFS a file that is open on this host gets another name until it is closed, and its directory stays with it: that
    is no error, and the next attempt removes both.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    shutil.rmtree(path, ignore_errors=True)
    if path.exists() and not all(entry.is_dir() or entry.name.startswith(_STILL_OPEN) for entry in path.rglob("*")):
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


# -- what others do ----------------------------------------------------------------------------------------------

# On a network file system stat(2) tells what was so up to a minute ago, of names that aren't there, too. To open a
# directory asks the server: what is looked up in it afterwards is so by now (nfs(5), DATA AND METADATA COHERENCE).


def ask_anew(directory: Path) -> None:
    """From now on what is looked up in a directory is what is there by now. Raises FileNotFoundError."""
    os.close(os.open(directory, _DIRECTORY))


# `levels`: of the directories above a path, how many may have come, been moved or removed, too.


def read_anew(path: Path, levels: int = 1) -> bytes:
    """What a file that others replace holds by now. Raises FileNotFoundError, or another OSError."""
    _ask_above(path, levels)
    return path.read_bytes()


def is_there(path: Path, levels: int = 1) -> bool:
    """Whether there is something at `path` by now; a symbolic link is, wherever it leads."""
    return _look(path.lstat, path, levels) is not None


def is_still(path: Path, descriptor: int, levels: int = 1) -> bool:
    """Whether a file that was opened is what is at `path` by now, or where that leads."""
    seen = _look(path.stat, path, levels)
    return seen is not None and os.path.samestat(seen, os.fstat(descriptor))


def _look(how: Callable[[], os.stat_result], path: Path, levels: int) -> os.stat_result | None:
    try:
        _ask_above(path, levels)
        return how()
    except FileNotFoundError:
        return None


def _ask_above(path: Path, levels: int) -> None:
    for parent in reversed(path.parents[:levels]):
        ask_anew(parent)


def is_local(path: Path) -> bool:
    """Whether nobody but this kernel changes the file system that holds `path`, as far as is known of its kind."""
    # struct statfs begins with the kind (statfs(2)), and has 120 bytes.
    found = ctypes.create_string_buffer(256)
    if ctypes.CDLL(None, use_errno=True).statfs(os.fsencode(path), found):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    return ctypes.c_long.from_buffer(found).value in _LOCAL_KINDS


# When each directory that was asked for had changed, and when that was seen first (monotonic).
_changes: dict[Path, tuple[int, int]] = {}


def changed_ns(directory: Path) -> int | None:
    """When something came into a directory or left it, the same number while nothing does; None where a change after
    this one may not show: the time is that of the last tick of a clock, the file server's, if there is one.

    So a time counts once it has been seen for longer than a tick. Raises FileNotFoundError.
    """
    now_ns = time.monotonic_ns()
    descriptor = os.open(directory, _DIRECTORY)
    try:
        changed = os.fstat(descriptor).st_mtime_ns
    finally:
        os.close(descriptor)
    seen = _changes.get(directory)
    if seen is None or seen[0] != changed:
        _changes[directory] = (changed, time.monotonic_ns())
        return None
    return changed if now_ns - seen[1] > _TICK_NS else None


class Clock:
    """Whether a directory has changed, by its time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen_ns: int | None = None

    def has_changed(self) -> bool:
        """Whether something may have come or gone since the last time that this was asked."""
        before_ns, self._seen_ns = self._seen_ns, changed_ns(self._directory)
        return self._seen_ns is None or self._seen_ns != before_ns


def mark(path: Path) -> tuple[int, int, int]:
    """What is another one once a file was replaced or written, or a directory has changed; zeros for nothing there."""
    try:
        seen = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return (seen.st_ino, seen.st_size, seen.st_mtime_ns)
