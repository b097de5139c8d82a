"""The tickets of all jobs that wait or run, each read once, for there may be ten thousand of them."""

import os
import time
from pathlib import Path

from construir_ftp.errors import ConstruirError
from construir_ftp.spool.job import Job, Ticket

# A kernel's clock ticks a hundred times a second at least (CONFIG_HZ).
_TICK_NS = 20_000_000


class Tickets:
    """Those of one spool. Safe to use from several threads."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        # By state; the number is when its directory was changed, or 0 if what was found there may be old by now.
        self._found: dict[str, tuple[int, dict[str, Ticket | None]]] = {}

    def read(self, state: str) -> dict[str, Ticket | None]:
        """Those in `state`, oldest first; None where one is damaged. The same dictionary while nothing changes."""
        directory = self._spool / state
        changed_at = directory.stat().st_mtime_ns
        if (seen := self._found.get(state)) and seen[0] == changed_at:
            return seen[1]
        known = seen[1] if seen else {}
        found = {
            name: known.get(name) or self._first_seen(directory, name)
            for name in sorted(os.listdir(directory))  # noqa: PTH208 - not a Path for each of ten thousand
            if name in known or _is_job(directory, name)
        }
        # A time is that of the clock's last tick: what changes within the same one, after we looked, would not show.
        is_settled = time.time_ns() - changed_at > _TICK_NS
        self._found = {**self._found, state: (changed_at if is_settled else 0, found)}
        return found

    def _first_seen(self, directory: Path, name: str) -> Ticket | None:
        """That of a job which has just come, perhaps from another state."""
        moved = (tickets[name] for _, tickets in self._found.values() if name in tickets)
        return next(moved, None) or read(directory / name)


def read(job: Path) -> Ticket | None:
    """The ticket of one job; None if it is damaged."""
    try:
        return Job(job).ticket()
    except ConstruirError:
        return None


def _is_job(directory: Path, name: str) -> bool:
    place = directory / name
    return place.is_dir() and not place.is_symlink()


def names(directory: Path) -> list[str]:
    """The id of every job in a directory, oldest first. What isn't a directory, such as a symbolic link, is no job."""
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
