"""Directory listings: read in pieces, hardly further than they are sent, and kept for whoever asks for the same.

The first piece is read at once, in the event loop: a few milliseconds, and all there is of most directories. The
others are read in the background. What the shared listings take in memory is bounded: the oldest gives way, and who
is still being sent it is cut off. All of this is for the loop's thread, except for what says otherwise.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from construir_ftp.ftp.ioloop import Background

log = logging.getLogger("construir.ftp")

_PIECE_BYTES = 64 * 1024
_PIECE_S = 0.005
# However slow the disk, a piece has so many entries: a small directory is always one piece.
_FEWEST = 32
_MOST_BYTES = 64 * 2**20
_KEPT_S = 300.0
# Two changes within one tick of the kernel's clock, 10 ms at most, leave a directory with the same time.
_SETTLED_NS = 100 * 10**6

# Which directory in which form, and when it was last changed (st_mtime_ns): what is the same for equal listings.
Version = tuple[object, int]
# Begins to read a directory; given what a former listing of it in the same form said, piece by piece, if there is one.
Begin = Callable[[deque[bytes]], Generator[bytes, None, None]]


class ListingError(Exception):
    """A listing has come to an early end; the text is what to reply."""


class Pieces:
    """Lines joined to pieces, each read in some milliseconds. For any thread, one at a time."""

    def __init__(self, lines: Generator[bytes, None, None]) -> None:
        self._lines = lines
        self.is_complete = False

    def read(self) -> bytes:
        """The next piece. b"": there are no more, or none of its lines is ready yet. Raises what `lines` does."""
        until = time.monotonic() + _PIECE_S
        lines: list[bytes] = []
        size_bytes = 0
        for line in self._lines:
            lines.append(line)
            size_bytes += len(line)
            if size_bytes >= _PIECE_BYTES or (len(lines) >= _FEWEST and time.monotonic() > until):
                return b"".join(lines)
        self.is_complete = True
        return b"".join(lines)

    def close(self) -> None:
        """Let go of the directory."""
        self._lines.close()


class Listing:
    """One directory's lines, as far as they have been read.

    One that is kept holds all of them, for further readers; any other only what a reader of its own still needs.
    """

    def __init__(self, lines: Generator[bytes, None, None], background: Background) -> None:
        self.version: Version | None = None
        self.is_kept = self.is_closed = False
        self.size_bytes = 0
        self.used_s = time.monotonic()
        self.on_growth: Callable[[], None] = lambda: None
        self._source = Pieces(lines)
        self._background = background
        self._pieces: deque[bytes] = deque()
        self._dropped = 0
        self._is_being_read = False
        self._failure = ""
        self._readers: list[Reader] = []
        self._add(self._source.read())

    @property
    def is_complete(self) -> bool:
        """Whether all of it has been read."""
        return self._source.is_complete

    def said(self) -> deque[bytes]:
        """Its pieces, if it is kept and complete."""
        return self._pieces.copy() if self.is_kept and self.is_complete else deque()

    # -- its readers ---------------------------------------------------------------------------------------

    def join(self, reader: "Reader") -> None:
        """Take a reader in, who begins at the first piece."""
        self.used_s = time.monotonic()
        self._readers.append(reader)

    def leave(self, reader: "Reader") -> None:
        """Let a reader go; the last one leaves nothing behind but what is complete and kept."""
        self._readers.remove(reader)
        if not self._readers and not (self.is_kept and self.is_complete):
            self.close()

    def has(self, number: int) -> bool:
        """Whether `piece` has an answer; if not, the readers will be woken when it has."""
        is_read = number < self._dropped + len(self._pieces)
        return is_read or bool(self._failure) or (self.is_complete and not self._is_being_read)

    def piece(self, number: int) -> bytes:
        """One of the pieces; b"" after the last. Raises ListingError."""
        self._trim()
        index = number - self._dropped
        if index >= len(self._pieces) - 1:
            self.read_on()
        if index < len(self._pieces):
            return self._pieces[index]
        if self._failure:
            raise ListingError(self._failure)
        return b""

    # -- reading it ----------------------------------------------------------------------------------------

    def read_on(self) -> None:
        """Have the next piece read in the background."""
        if not (self._is_being_read or self.is_complete or self._failure or self.is_closed):
            self._is_being_read = True
            self._background.read(self._next, self._arrived, of=self)

    def _next(self) -> bytes | Exception:
        """The next piece, or what went wrong. For a thread."""
        try:
            return self._source.read()
        except Exception as error:  # noqa: BLE001 - it is logged, and replied, by the loop
            return error

    def _arrived(self, piece: bytes | Exception) -> None:
        self._is_being_read = False
        if self.is_closed:
            self._source.close()
            return
        if isinstance(piece, Exception):
            log.error("a listing broke off: %s", ascii(piece), exc_info=None if isinstance(piece, OSError) else piece)
            self._failure = "451 The directory can't be read to its end."
        elif not (piece or self.is_complete):
            # None of its lines is ready. It waits for its turn again, among the other listings.
            self.read_on()
            return
        else:
            self._add(piece)
            self.on_growth()
        for reader in list(self._readers):
            reader.wake()

    def _add(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self.size_bytes += len(piece)

    # -- its end -------------------------------------------------------------------------------------------

    def outdate(self) -> None:
        """Keep it for no further readers; those it has go on."""
        self.is_kept = False
        if self._readers:
            self._trim()
        else:
            self.close()

    def give_way(self) -> None:
        """Make room: only the reader who is ahead goes on, if there is more to be read; the others are cut off."""
        ahead = max(self._readers, key=lambda reader: reader.position, default=None)
        is_going_on = ahead is not None and not self.is_complete
        for reader in [reader for reader in self._readers if not (is_going_on and reader is ahead)]:
            reader.cut_off()
        self.outdate()

    def _trim(self) -> None:
        needed = min((reader.position for reader in self._readers), default=0)
        while not self.is_kept and self._pieces and self._dropped < needed:
            self.size_bytes -= len(self._pieces.popleft())
            self._dropped += 1

    def close(self) -> None:
        """Let go of the directory and the pieces."""
        self.is_closed, self.is_kept = True, False
        self._pieces.clear()
        self.size_bytes = 0
        # A generator that runs, in a thread, can't be closed; `_arrived` will.
        if not self._is_being_read:
            self._source.close()


class Reader:
    """One session's way through a listing: a producer to asynchat, and to pyftpdlib also the file that is sent."""

    def __init__(self, listing: Listing, name: str) -> None:
        self.name, self.closed = name, False
        self.position = 0
        self._listing: Listing | None = listing
        self._wake: Callable[[], None] | None = None
        listing.join(self)

    def is_ready(self) -> bool:
        """Whether `more` has an answer."""
        return self._listing is None or self._listing.has(self.position)

    def more(self) -> bytes:
        """The next piece; b"" after the last. Raises ListingError."""
        if self._listing is None:
            raise ListingError("426 Too slow: the listing has changed meanwhile; ask for it again.")
        piece = self._listing.piece(self.position)
        self.position += 1
        return piece

    def wait(self, wake: Callable[[], None]) -> None:
        """Have `wake` called once, when `more` has an answer."""
        self._wake = wake
        if self._listing is not None:
            self._listing.read_on()

    def wake(self) -> None:
        """Tell whoever waits to look again."""
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def cut_off(self) -> None:
        """Give the listing up; `more` will say so."""
        if self._listing is not None:
            listing, self._listing = self._listing, None
            listing.leave(self)
            self.wake()

    def close(self) -> None:
        """Give the listing up; nobody will ask for more."""
        self.closed, self._wake = True, None
        self.cut_off()


class Listings:
    """The listings that are kept for all sessions, until the directory has changed or nobody has asked for a while."""

    def __init__(
        self, background: Background, ioloop: Any, most_bytes: int = _MOST_BYTES, kept_s: float = _KEPT_S
    ) -> None:
        self._background, self._ioloop = background, ioloop
        self._most_bytes, self._kept_s = most_bytes, kept_s
        self._shared: list[Listing] = []
        self._lasting: set[object] = set()
        self._sweeping: Any = None

    @property
    def size_bytes(self) -> int:
        """What they take in memory."""
        return sum(listing.size_bytes for listing in self._shared)

    def open(self, name: str, version: Version | None, lines: Begin) -> Reader:
        """A reader of the listing of `name`, the session's path: of one that is there, or of a new one with `lines`.

        `version` is None for a listing that is nobody else's. Raises what `lines` does.
        """
        kept = (listing for listing in self._shared if listing.is_kept and listing.version == version)
        return Reader(next(kept, None) or self._begin(version, lines), name)

    def keep(self, version: Version) -> None:
        """Of this directory in this form, keep the latest listing however long nobody asks for it."""
        self._lasting.add(version[0])

    def close(self) -> None:
        """Keep nothing any longer."""
        for listing in self._shared:
            listing.outdate()
        self._sweep()

    def _begin(self, version: Version | None, lines: Begin) -> Listing:
        begun_ns = time.time_ns()
        former = next(iter(self._of(version)), None)
        listing = Listing(lines(former.said() if former else deque()), self._background)
        # What was read at once is not worth the memory.
        if version is not None and begun_ns - version[1] > _SETTLED_NS and not listing.is_complete:
            self._share(listing, version)
        return listing

    def _share(self, listing: Listing, version: Version) -> None:
        for former in self._of(version):
            former.outdate()
        listing.version, listing.is_kept, listing.on_growth = version, True, self._make_room
        self._shared.append(listing)
        if self._sweeping is None:
            self._sweeping = self._ioloop.call_later(self._kept_s, self._sweep)

    def _of(self, version: Version | None) -> list[Listing]:
        """Those of the same directory in the same form, the latest first."""
        same = [known for known in self._shared if known.version and version and known.version[0] == version[0]]
        return same[::-1]

    def _make_room(self) -> None:
        while self.size_bytes > self._most_bytes:
            self._shared.pop(0).give_way()

    def _sweep(self) -> None:
        """Forget the listings that nobody has asked for in a while; those that are being sent are looked at again."""
        for listing in self._shared:
            is_lasting = listing.is_kept and listing.version is not None and listing.version[0] in self._lasting
            if time.monotonic() - listing.used_s >= self._kept_s and not is_lasting:
                listing.outdate()
        self._shared = [listing for listing in self._shared if not listing.is_closed]
        if self._sweeping is not None and not self._sweeping.cancelled:
            self._sweeping.cancel()
        self._sweeping = self._ioloop.call_later(self._kept_s, self._sweep) if self._shared else None
