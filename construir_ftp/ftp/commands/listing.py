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

from construir_ftp.ftp.session import Session
from construir_ftp.ftp.vfs import listing_lines
from construir_ftp.ftp.vfs.listing import Begin, Pieces, Reader, Version
from construir_ftp.ftp.vfs.listing_lines import DirEntry, Line
from construir_ftp.ftp.vfs.view import View, Walked
from construir_ftp.jobs.reply import Reply

Order = Callable[[Iterable[DirEntry], Line], Iterator[bytes]]
Renew = Callable[[Line, deque[bytes]], Line]
# What listings are opened by: see Listings.open.
Request = tuple[Version | None, Begin]


def _anew(line: Line, _former: deque[bytes]) -> Line:
    return line


def mlsd(session: Session, path: str) -> Reply | None:
    """Send the entries of a directory with their facts; RFC 3659, 7.2.1: 501 for what isn't one."""
    if not session.fs.isdir(path):
        return Reply(501, "No such directory.")
    return _send(session, path, partial(with_facts, session.fs, path, session._current_facts))


def list_(session: Session, path: str) -> Reply | None:
    """Send the entries of a directory, or a file's, as ls -l shows them."""
    line = listing_lines.long(time.time())
    return _send(session, path, partial(_requested, session.fs, path, "LIST", listing_lines.in_order, line))


def nlst(session: Session, path: str) -> Reply | None:
    """Send the names in a directory, or a file's."""
    line = listing_lines.short
    return _send(session, path, partial(_requested, session.fs, path, "NLST", listing_lines.in_order, line))


def stat_(session: Session, path: str) -> Reply | None:
    """Say what LIST would say of a path, as far as it can be said in one breath; without a path pyftpdlib answers."""
    if not session.authenticated:
        return Reply(530, "Log in with USER and PASS first.")
    try:
        pieces = Pieces(
            _lines(session.fs, path, listing_lines.in_order, listing_lines.long(time.time()), _anew, deque())
        )
        listing = pieces.read()
        pieces.close()
    except (OSError, FilesystemError) as error:
        return Reply(550, f"{strerror(error)}.")
    if not pieces.is_complete:
        return Reply(450, "Too many entries for STAT; use LIST.")
    session.push(f'213-Status of "{path}":\r\n{listing.decode()}')
    return Reply(213, "End of status.")


def _send(session: Session, path: str, request: Callable[[], Request]) -> Reply | None:
    try:
        reader: Reader = session.server.listings.open(path, *request())
    except (OSError, FilesystemError) as error:
        return Reply(550, f"{strerror(error)}.")
    session.push_dtp_data(reader, isproducer=True, file=reader, cmd="LIST")
    return None


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
