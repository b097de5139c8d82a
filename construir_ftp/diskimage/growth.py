"""How much of an upload there is: all of it, or as much as its reader has been told of so far.

A judge reads a file while it is still being received, and never beyond what it has been told of. What it is told
comes over a socket (SOCK_SEQPACKET, unix(7)): message(...) on one end, Told on the other.
"""

import socket
import struct
from typing import Protocol

from construir_ftp.errors import ConstruirError

_MESSAGE = struct.Struct("<QQ?")


class AbandonedError(ConstruirError):
    """The upload was cut, or whoever received it is gone: nobody waits for a verdict."""


class Growth(Protocol):
    """What a reader asks. Sizes in bytes; `most_bytes` is what all of it can have at most, which at the end it has."""

    size_bytes: int
    most_bytes: int
    is_whole: bool

    def wait(self, beyond_bytes: int) -> None:
        """Return when there are more bytes than these, or all there will ever be."""

    def look(self) -> None:
        """Take note of what is known by now, without waiting."""


class Whole:
    """A file that has stopped growing."""

    is_whole = True

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = self.most_bytes = size_bytes

    def wait(self, beyond_bytes: int) -> None:
        """Return at once."""

    def look(self) -> None:
        """Nothing changes any more."""


class Told:
    """What comes in by `channel`. Raises AbandonedError when it is closed before the upload is whole."""

    def __init__(self, channel: socket.socket) -> None:
        self.size_bytes, self.most_bytes = 0, 2**63 - 1
        self.is_whole = False
        self._channel = channel

    def wait(self, beyond_bytes: int) -> None:
        """Return when there are more bytes than these, or all there will ever be."""
        while self.size_bytes <= beyond_bytes and not self.is_whole:
            self._hear(0)

    def look(self) -> None:
        """Take note of what is known by now, without waiting."""
        try:
            while not self.is_whole:
                self._hear(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return

    def _hear(self, flags: int) -> None:
        said = self._channel.recv(_MESSAGE.size, flags)
        if not said:
            raise AbandonedError("nobody waits for the verdict any more")
        self.size_bytes, most_bytes, self.is_whole = _MESSAGE.unpack(said)
        self.most_bytes = self.size_bytes if self.is_whole else most_bytes


def message(size_bytes: int, most_bytes: int, is_whole: bool) -> bytes:
    """That there are so many bytes, how many there may be, and whether that is all."""
    return _MESSAGE.pack(size_bytes, most_bytes, is_whole)
