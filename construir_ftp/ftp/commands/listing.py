"""The commands that say what is in a directory: LIST, NLST, MLSD, and STAT with a path (see connections).

pyftpdlib reads a directory whole, and puts it in order, before it sends the first byte; nobody else is served
meanwhile. Here listings come in pieces.
"""

import errno
import fnmatch
import glob
import os
import re
import stat
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import Self

from pyftpdlib.exceptions import FilesystemError

from construir_ftp.ftp.session import Session
from construir_ftp.ftp.vfs import listing_lines
from construir_ftp.ftp.vfs.listing import Begin, Pieces, Reader, Version
from construir_ftp.ftp.vfs.listing_lines import Entries, Line
from construir_ftp.ftp.vfs.view import View, Walked
from construir_ftp.jobs.reply import Reply

Order = Callable[[Entries, Line], Iterator[bytes]]
Renew = Callable[[Line, deque[bytes]], Line]
# What listings are opened by: see Listings.open.
Request = tuple[Version | None, Begin]


# What ls takes for options, and so do clients: letters behind a dash. A job's name has a dot, or comes after --.
_OPTIONS = re.compile(r"(?:-[A-Za-z0-9]+(?:\s+|$))*(?:--(?:\s+|$))?")
_MOST_PATTERN_CHARACTERS = 255
# Each may have a name looked through once more.
_COSTLY = "*["
_MOST_COSTLY = 16


@dataclass(frozen=True)
class Named:
    """What a listing is to be of: the path, a directory's if there is a `pattern` for the names in it.

    `before` is what a client has said in front of the pattern: the names that it is told begin with that.
    """

    path: str
    pattern: re.Pattern[str] | None = None
    before: str = ""

    @classmethod
    def of(cls, view: View, line: str) -> Self:
        """What a client means by a line of options, which mean nothing here, and a path."""
        said = _OPTIONS.sub("", line, count=1)
        path = view.ftp2fs(said)
        directory, slash, name = said.rpartition("/")
        if not _is_pattern(name) or view.isfile(path) or view.isdir(path):
            return cls(path)
        return cls(view.ftp2fs(directory or slash), re.compile(fnmatch.translate(name)), directory + slash)

    def matching(self, entries: Entries) -> Entries:
        """Those that are meant; the others are passed over."""
        if self.pattern is None:
            return entries
        return (
            Walked(self.before + entry.name, entry.stat) if entry and self.pattern.match(entry.name) else None
            for entry in entries
        )


def _is_pattern(name: str) -> bool:
    is_short = len(name) <= _MOST_PATTERN_CHARACTERS and sum(map(name.count, _COSTLY)) <= _MOST_COSTLY
    return is_short and glob.has_magic(name)


def _anew(line: Line, _former: deque[bytes]) -> Line:
    return line


def mlsd(session: Session, path: str) -> Reply | None:
    """Send the entries of a directory with their facts; RFC 3659, 7.2.1: 501 for what isn't one."""
    if not session.fs.isdir(path):
        missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        is_file = session.fs.isfile(path)
        return Reply(501, "Not a directory." if is_file else f"{session.fs.why_not(path, missing)}.")
    return _send(session, path, partial(with_facts, session.fs, path, session._current_facts))


def list_(session: Session, line: str) -> Reply | None:
    """Send the entries of a directory, a file's, or those that a pattern matches, as ls -l shows them."""
    return _send_named(session, line, "LIST", listing_lines.long(time.time()))


def nlst(session: Session, line: str) -> Reply | None:
    """Send the names in a directory, a file's, or those that a pattern matches."""
    return _send_named(session, line, "NLST", listing_lines.short)


def _send_named(session: Session, line: str, form: str, entry_line: Line) -> Reply | None:
    named = Named.of(session.fs, line)
    return _send(session, named.path, partial(_requested, session.fs, named, form, listing_lines.in_order, entry_line))


def at_once(session: Session, line: str) -> Reply:
    """Say what LIST would, without a data connection, as far as it can be said in one breath."""
    named = Named.of(session.fs, line)
    try:
        pieces = Pieces(
            _lines(session.fs, named, listing_lines.in_order, listing_lines.long(time.time()), _anew, deque())
        )
        listing = pieces.read()
        pieces.close()
    except (OSError, FilesystemError) as error:
        return Reply(550, f"{session.fs.why_not(named.path, error)}.")
    if not pieces.is_complete:
        return Reply(450, "Too many entries for STAT; use LIST.")
    session.push(f'213-Status of "{named.path}":\r\n{listing.decode()}')
    return Reply(213, "End of status.")


def _send(session: Session, path: str, request: Callable[[], Request]) -> Reply | None:
    try:
        reader: Reader = session.server.listings.open(path, *request())
    except (OSError, FilesystemError) as error:
        return Reply(550, f"{session.fs.why_not(path, error)}.")
    session.push_dtp_data(reader, isproducer=True, file=reader, cmd="LIST")
    return None


def with_facts(view: View, path: str, facts: Iterable[str]) -> Request:
    """The listing that MLSD sends. Raises OSError."""
    chosen = sorted(facts)
    line = listing_lines.mlsd(chosen)
    return _requested(view, Named(path), f"MLSD {chosen}", listing_lines.as_they_come, line, listing_lines.remembering)


def _requested(view: View, named: Named, form: str, order: Order, line: Line, renew: Renew = _anew) -> Request:
    found = None if named.pattern else view.version(named.path)
    version = None if found is None else ((found[0], form), found[1])
    return version, partial(_lines, view, named, order, line, renew)


def _lines(
    view: View, named: Named, order: Order, line: Line, renew: Renew, former: deque[bytes]
) -> Generator[bytes, None, None]:
    status = view.lstat(named.path)
    if stat.S_ISDIR(status.st_mode):
        with view.scan(named.path) as entries:
            yield from order(named.matching(entries), renew(line, former))
    elif named.pattern is not None:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), named.path)
    else:
        yield line(Walked(PurePath(named.path).name, lambda: status))
