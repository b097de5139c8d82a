"""Which results came or went, told by the kernel (inotify(7)): nobody reads a directory of 100,000 for one of them.

What is told may be wrong by the time it is looked at; who asks looks. Nothing here opens a result.
"""

import ctypes
import logging
import os
import struct
from pathlib import Path

from construir_ftp import files

# linux/inotify.h
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_OVERFLOW = 0x4000
_ONLY_DIRECTORY = 0x01000000
_EVENT = struct.Struct("iIII")
_BUFFER_BYTES = 256 * 1024

log = logging.getLogger(__name__)

_libc = ctypes.CDLL(None, use_errno=True)


def watch(directory: Path) -> "Changes | Polled":
    """Of the names in one directory, from now on; to be closed."""
    if not files.is_local(directory):
        return Polled(directory)  # the kernel tells nothing of what other hosts do
    try:
        return Changes(directory)
    except OSError as error:
        # fs.inotify.max_user_instances is 128 by default, and other programs of the same user count.
        log.warning("no inotify (%s): each change costs a look at all of %s", error.strerror, directory)
        return Polled(directory)


class Polled:
    """The changes of a directory that has nothing but its time to tell of them."""

    def __init__(self, directory: Path) -> None:
        self._clock = files.Clock(directory)
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Never becomes readable."""
        return self._descriptor

    def read(self) -> set[str] | None:
        """None where something may have come or gone since the last time; else no names."""
        return None if self._clock.has_changed() else set()

    def close(self) -> None:
        """Look no more."""
        os.close(self._descriptor)


class Changes:
    """Of the names in one directory, from now on. Raises OSError where the kernel tells nothing."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            mask = _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLY_DIRECTORY
            _check(_libc.inotify_add_watch(self._descriptor, os.fsencode(directory), mask))
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """Becomes readable when there is something to read."""
        return self._descriptor

    def read(self) -> set[str] | None:
        """The names that came or went since the last time; None where too many did to be told."""
        names: set[str] = set()
        is_lost = False
        while content := self._next():
            for mask, name in _events(content):
                is_lost = is_lost or bool(mask & _OVERFLOW)
                names.add(name)
        return None if is_lost else names - {""}

    def _next(self) -> bytes:
        try:
            return os.read(self._descriptor, _BUFFER_BYTES)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Hear no more."""
        os.close(self._descriptor)


def _events(content: bytes) -> list[tuple[int, str]]:
    found, at = [], 0
    while at < len(content):
        _, mask, _, length = _EVENT.unpack_from(content, at)
        at += _EVENT.size
        found.append((mask, os.fsdecode(content[at : at + length].rstrip(b"\0"))))
        at += length
    return found


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
