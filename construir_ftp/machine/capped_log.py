"""A log that may be flooded: its first and last part are kept, all of it is drained.

The file only ever grows, so that it can be followed while the job runs. What finds no room on a full disk is left out
like the middle of a long log: it is no reason to end a machine.
"""

import errno
from collections import deque
from pathlib import Path


class CappedLog:
    """Keeps the first `head_bytes` and the last `tail_bytes` of what is written, in `path` (created)."""

    def __init__(self, path: Path, head_bytes: int, tail_bytes: int) -> None:
        self._file = path.open("xb", buffering=0)
        self._room = head_bytes
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._keep = tail_bytes
        self.total_bytes = 0

    def write(self, block: bytes) -> None:
        """Take a block: straight to the file while the head has room, then to the tail, which waits for close()."""
        self.total_bytes += len(block)
        head, rest = block[: self._room], block[self._room :]
        if head:
            taken = self._put(head)
            self._room = self._room - taken if taken == len(head) else 0
            rest = head[taken:] + rest
        if rest:
            self._tail.append(rest)
            self._tail_bytes += len(rest)
            # Memory stays within the tail and one block; close() cuts to the byte.
            while self._tail and self._tail_bytes - len(self._tail[0]) >= self._keep:
                self._tail_bytes -= len(self._tail.popleft())

    def _put(self, block: bytes) -> int:
        """How many bytes of it found room."""
        try:
            return self._file.write(block)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return 0

    def close(self) -> None:
        """Write the tail after the head, a line between them saying how much is missing."""
        tail = b"".join(self._tail)
        missing = self.total_bytes - self._file.tell() - min(len(tail), self._keep)
        if missing:
            self._put(f"\n[... {missing} bytes left out ...]\n".encode())
        self._put(tail[len(tail) - min(len(tail), self._keep) :])
        self._file.close()
