"""The commands that say what is in a directory: LIST, NLST, MLSD, and STAT with a path.

pyftpdlib reads a directory whole, and puts it in order, before it sends the first byte; nobody else is served
meanwhile. Here listings come in pieces.
"""

import stat
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import PurePath

from pyftpdlib.exceptions import FilesystemError
from pyftpdlib.utils import strerror

from construir_ftp.ftp.login import IdentifiedConnection
from construir_ftp.ftp.vfs import listing_lines
from construir_ftp.ftp.vfs.listing import Begin, Pieces, Reader, Version
from construir_ftp.ftp.vfs.listing_lines import Entry, Line
from construir_ftp.ftp.vfs.view import View, Walked

Order = Callable[[Iterable[Entry], Line], Iterator[bytes]]
Renew = Callable[[Line, deque[bytes]], Line]
# What listings are opened by: see Listings.open.
Request = tuple[Version | None, Begin]


def _anew(line: Line, _former: deque[bytes]) -> Line:
    return line


class BrowsingConnection(IdentifiedConnection):
    """A control connection whose `fs` can be listed."""

    fs: View

    def ftp_MLSD(self, path: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Send the entries of a directory with their facts; RFC 3659, 7.2.1: 501 for what isn't one."""
        if self.fs.isdir(path):
            self._send_listing(path, partial(with_facts, self.fs, path, self._current_facts))
        else:
            self.respond("501 No such directory.")

    def ftp_LIST(self, path: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Send the entries of a directory, or a file's, as ls -l shows them."""
        self._send_listing(
            path, partial(_requested, self.fs, path, "LIST", listing_lines.in_order, listing_lines.long(time.time()))
        )

    def ftp_NLST(self, path: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Send the names in a directory, or a file's."""
        self._send_listing(
            path, partial(_requested, self.fs, path, "NLST", listing_lines.in_order, listing_lines.short)
        )

    def ftp_STAT(self, path: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Say how the session is; with a path, what LIST would say, as far as it can be said in one breath."""
        if not path:
            super().ftp_STAT(path)
            return
        try:
            pieces = Pieces(
                _lines(self.fs, path, listing_lines.in_order, listing_lines.long(time.time()), _anew, deque())
            )
            listing = pieces.read()
            pieces.close()
        except (OSError, FilesystemError) as error:
            self.respond(f"550 {strerror(error)}.")
            return
        if pieces.is_complete:
            self.push(f'213-Status of "{path}":\r\n{listing.decode()}')
            self.respond("213 End of status.")
        else:
            self.respond("450 Too many entries for STAT; use LIST.")

    def _send_listing(self, path: str, request: Callable[[], Request]) -> None:
        try:
            reader: Reader = self.server.listings.open(path, *request())
        except (OSError, FilesystemError) as error:
            self.respond(f"550 {strerror(error)}.")
        else:
            self.push_dtp_data(reader, isproducer=True, file=reader, cmd="LIST")


def with_facts(view: View, path: str, facts: Iterable[str]) -> Request:
    """The listing that MLSD sends. Raises OSError."""
    chosen = sorted(facts)
    line = listing_lines.mlsd(chosen)
    return _requested(view, path, f"MLSD {chosen}", listing_lines.as_they_come, line, listing_lines.remembering)


def _requested(view: View, path: str, form: str, order: Order, line: Line, renew: Renew = _anew) -> Request:
    found = view.version(path)
    version = None if found is None else ((found[0], form), found[1])
    return version, partial(_lines, view, path, order, line, renew)


def _lines(
    view: View, path: str, order: Order, line: Line, renew: Renew, former: deque[bytes]
) -> Generator[bytes, None, None]:
    status = view.lstat(path)
    if stat.S_ISDIR(status.st_mode):
        with view.scan(path) as entries:
            yield from order(entries, renew(line, former))
    else:
        yield line(Walked(PurePath(path).name, lambda: status))
