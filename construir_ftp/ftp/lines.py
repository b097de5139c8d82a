"""The lines that a client has sent and that wait to be obeyed. What they take in memory is bounded: see `is_full`."""

from collections import deque

# One byte more shows that a line is too long; no more of it is kept.
LONGEST_BYTES = 2048
# So may a session fill some 100 KiB of our memory, and one read more. Keepalives that come once in 15 s during an
# upload of hours are far fewer.
_MOST_LINES = 1000
_MOST_BYTES = 1 << 16

# Obeyed while another command is under way. Their first bytes may be Telnet's IP and Synch (RFC 959, 4.1.3).
_URGENT = (b"ABOR", b"STAT")


_HTTP_VERBS = frozenset(b"GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH PRI".split())


class Lines:
    """Of one session, in the order in which they came. Their ends, CR LF or LF alone, are left out."""

    def __init__(self) -> None:
        self._whole: deque[bytes] = deque()
        self._begun = b""
        self._size_bytes = 0
        self._urgent = 0

    def __len__(self) -> int:
        return len(self._whole)

    @property
    def is_full(self) -> bool:
        """Whether no more should be read before some of these are obeyed."""
        return len(self._whole) >= _MOST_LINES or self._size_bytes >= _MOST_BYTES

    @property
    def has_urgent(self) -> bool:
        """Whether one of them is for the command that is under way."""
        return self._urgent > 0

    def feed(self, data: bytes) -> None:
        """Take in what has come: any part of lines. One that is too long is kept too long, but not whole."""
        *whole, begun = (self._begun + data).split(b"\n")
        for line in whole:
            kept = line.removesuffix(b"\r")[: LONGEST_BYTES + 1]
            self._whole.append(kept)
            self._size_bytes += len(kept)
            self._urgent += _is_urgent(kept)
        # Its last byte may be the first half of its end.
        self._begun = begun if len(begun) <= LONGEST_BYTES + 2 else bytes(LONGEST_BYTES + 2)

    def next(self) -> bytes:
        """Take out the first one. Raises IndexError if there is none."""
        return self._taken(0)

    def next_urgent(self) -> bytes:
        """Take out the first one that is for the command under way. Raises StopIteration if there is none."""
        return self._taken(next(place for place, line in enumerate(self._whole) if _is_urgent(line)))

    def clear(self) -> None:
        """Forget them, and what has begun."""
        self._whole.clear()
        self._begun, self._size_bytes, self._urgent = b"", 0, 0

    def _taken(self, place: int) -> bytes:
        line = self._whole[place]
        del self._whole[place]
        self._size_bytes -= len(line)
        self._urgent -= _is_urgent(line)
        return line


def is_http(line: bytes) -> bool:
    """Whether a line begins a request of HTTP."""
    return line.partition(b" ")[0].upper() in _HTTP_VERBS


def _is_urgent(line: bytes) -> bool:
    return line.partition(b" ")[0].upper().endswith(_URGENT)
