"""The file an upload is written to, and how it is put on stable storage while it is still being received.

An fsync(2) of gigabytes at the end would be waited for by the client. So what has come is written back every few
MiB, in a thread, and room is set aside ahead of it, so that the blocks of the file lie together. What of that room is
not used is given back in the end.
"""

import logging
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from construir_ftp.intake import disk_calls

log = logging.getLogger("construir.ftp")

_WRITE_BACK_BYTES = 8 * 2**20
# Room is set aside for as much again as there is, up to this: many small uploads must not fill a disk with nothing.
_MOST_ROOM_BYTES = 64 * 2**20


class Flusher:
    """The thread that writes back. To be closed."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "flush")
        self.submit = self._thread.submit

    def close(self) -> None:
        """Wait until it has nothing left to do."""
        self._thread.shutdown()


class FileWriter:
    """Bytes are appended by the event loop; `settle`, elsewhere, ends it. `spare_bytes`: what may be set aside now."""

    def __init__(self, path: Path, flags: int, flusher: Flusher) -> None:
        self.name = str(path)
        # For pyftpdlib, which closes what is not: closing takes longer than the event loop has time for.
        self.closed = True
        self._descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o644)
        self.size_bytes = os.fstat(self._descriptor).st_size
        self._flusher = flusher
        self._flushed_bytes = self._room_bytes = self.size_bytes
        self._flush: Future[None] | None = None

    def write(self, chunk: bytes | memoryview, spare_bytes: int) -> None:
        """Append all of it. Raises OSError. No more than `spare_bytes` are set aside for what is to come."""
        left = memoryview(chunk)
        while left:
            written = os.write(self._descriptor, left)
            left = left[written:]
            self.size_bytes += written
        if self.size_bytes - self._flushed_bytes >= _WRITE_BACK_BYTES and (self._flush is None or self._flush.done()):
            self._flush = self._flusher.submit(self._write_back, self.size_bytes, spare_bytes)

    def settle(self, *, durable: bool) -> None:
        """Close it, and put it on stable storage before if it is to be `durable`. Takes as long as the disk does."""
        try:
            if self._flush is not None:
                self._flush.result()
            if self._room_bytes > self.size_bytes:
                os.ftruncate(self._descriptor, self.size_bytes)
            if durable:
                os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)

    def _write_back(self, size_bytes: int, spare_bytes: int) -> None:
        ahead_bytes = min(_MOST_ROOM_BYTES, size_bytes)
        # A file system may know nothing of either (EOPNOTSUPP), or have no room: then fsync has more to do, or says so.
        with suppress(OSError):
            if size_bytes + _WRITE_BACK_BYTES > self._room_bytes and ahead_bytes <= spare_bytes:
                disk_calls.set_aside(self._descriptor, size_bytes, ahead_bytes)
                self._room_bytes = size_bytes + ahead_bytes
        with suppress(OSError):
            disk_calls.start_writing(self._descriptor, self._flushed_bytes, size_bytes - self._flushed_bytes)
        self._flushed_bytes = size_bytes
