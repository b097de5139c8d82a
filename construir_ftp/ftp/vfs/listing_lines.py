"""The lines of a directory listing: those of MLSD (RFC 3659, 7), of LIST (ls -l, as clients expect) and of NLST.

They are the same as pyftpdlib's, which takes several times as long for them. Entries are looked at one by one, when
their line is due; one that has vanished by then is left out.
"""

import functools
import stat
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from os import stat_result
from typing import Protocol


class DirEntry(Protocol):
    """What a line needs of a directory's entry; an os.DirEntry is one."""

    @property
    def name(self) -> str:
        """Its name in the directory."""

    def stat(self) -> stat_result:
        """Its status. Raises OSError when it is no longer there."""


Line = Callable[[DirEntry], bytes]
# What is in a directory. None is an entry that is passed over: reading it takes time as well.
Entries = Iterable[DirEntry | None]

_DAY_S = 24 * 60 * 60
# What is younger is shown with a time of day, other things with their year.
_RECENT_S = 180 * _DAY_S
# English, whatever the server's locale is.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DIGITS = tuple(f"{number:02}" for number in range(60))
# So many entries are put in order at a time. They take 4 MB, and sorting them some milliseconds.
_RUN = 16384


def mlsd(facts: Collection[str]) -> Line:
    """Lines of MLSD with the given facts, out of "type", "size" and "modify"."""
    # Measured: % takes a third of the time of format. A fact nobody wants is shown in no characters.
    template = "".join(f"{fact}=%s;" if fact in facts else "%.0s" for fact in ("modify", "size", "type")) + " %s\r\n"

    def line(entry: DirEntry) -> bytes:
        status = entry.stat()
        kind = "dir" if stat.S_ISDIR(status.st_mode) else "file"
        day, time_s = divmod(int(status.st_mtime // 1), _DAY_S)
        hour, minute, second = _clock(time_s)
        modify = _date(day)[0] + hour + minute + second
        return (template % (modify, status.st_size, kind, entry.name)).encode(errors="replace")

    return line


def remembering(line: Line, former: deque[bytes]) -> Line:
    """The same lines of MLSD, of entries that never change: what a former listing said of one is said again.

    Measured: stat(2) and the making of a line take four times as long. Directories are mostly read in the same order
    again, so that only some hundred lines need to be known at a time; each piece is removed from `former` for that.
    """
    known: dict[bytes, bytes] = {}

    def remembered(entry: DirEntry) -> bytes:
        name = entry.name.encode(errors="replace")
        if name not in known and former:
            rows = former.popleft().splitlines(keepends=True)
            known.update((row.partition(b" ")[2].removesuffix(b"\r\n"), row) for row in rows)
        return known.pop(name, b"") or line(entry)

    return remembered


def long(now_s: float) -> Line:
    """Lines of LIST, as of `now_s` (seconds since 1970). Owner and group are nobody's business."""

    def line(entry: DirEntry) -> bytes:
        status = entry.stat()
        day, time_s = divmod(int(status.st_mtime // 1), _DAY_S)
        _, date, year = _date(day)
        hour, minute, _ = _clock(time_s)
        when = f" {year}" if now_s - status.st_mtime > _RECENT_S else f"{hour}:{minute}"
        mode, links, size = stat.filemode(status.st_mode), status.st_nlink, status.st_size
        return f"{mode} {links:3} construir construir {size:8} {date} {when} {entry.name}\r\n".encode(errors="replace")

    return line


def short(entry: DirEntry) -> bytes:
    """A line of NLST."""
    return f"{entry.name}\r\n".encode(errors="replace")


def as_they_come(entries: Entries, line: Line) -> Iterator[bytes]:
    """The line of each entry; nothing, b"", for one that is passed over or has vanished."""
    for entry in entries:
        try:
            yield line(entry) if entry is not None else b""
        except OSError:
            yield b""


def in_order(entries: Entries, line: Line, run: int = _RUN) -> Iterator[bytes]:
    """The lines in alphabetical order, and b"" for each entry that is only read; of more than a `run`, run by run."""
    batch: list[DirEntry] = []
    for entry in entries:
        if entry is not None:
            batch.append(entry)
        yield b""
        if len(batch) == run:
            yield from as_they_come(_sorted(batch), line)
    yield from as_they_come(_sorted(batch), line)


def _sorted(batch: list[DirEntry]) -> Iterator[DirEntry]:
    """Empty the list in order: what has had its turn needs no memory any longer."""
    batch.sort(key=lambda entry: entry.name, reverse=True)
    while batch:
        yield batch.pop()


@functools.lru_cache(1000)
def _date(day: int) -> tuple[str, str, str]:
    """A day, counted from 1970, as MLSD and LIST write it, and its year."""
    date = time.gmtime(day * _DAY_S)
    return time.strftime("%Y%m%d", date), f"{_MONTHS[date.tm_mon - 1]} {date.tm_mday:02}", str(date.tm_year)


def _clock(time_s: int) -> tuple[str, str, str]:
    """Hour, minute and second of a time since midnight, in two digits."""
    return _DIGITS[time_s // 3600], _DIGITS[time_s // 60 % 60], _DIGITS[time_s % 60]
