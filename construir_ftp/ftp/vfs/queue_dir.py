"""/queue as one session of a contributor sees it.

    what the contributor's sessions have begun to send, by its name: partial files, to be continued or renamed
    the contributor's waiting jobs, by the names they were sent by; of two of one name the older by its id
    what this session has sent, until it ends, whatever has become of it: clients look whether it has arrived
    everybody else's waiting jobs, by their ids

A directory that a client makes here is another name for /queue, as long as the session lasts.
"""

import errno
import logging
import os
import stat
import time
from collections.abc import Iterator
from pathlib import PurePosixPath

from construir_ftp.intake.incoming import Partial, Partials
from construir_ftp.intake.upload import Conclusion
from construir_ftp.jobs.spool import Job, Record, Spool

log = logging.getLogger("construir.ftp")

PLACE = "/queue"
_MOST_MADE = 100


class Queue:
    """What there is, and whose. Nothing here changes a job."""

    def __init__(self, spool: Spool, partials: Partials, contributor: str) -> None:
        self.contributor = contributor
        self._spool, self._partials = spool, partials
        self._sent: dict[str, tuple[str, os.stat_result]] = {}
        self._made: set[str] = set()
        # The sizes that SIZE has told, and the names of uploads that were not accepted, in this session.
        self.told: dict[str, int] = {}
        self.failed: set[str] = set()
        # By state: the records that were looked at last, and the names of those that are the contributor's.
        self._named: dict[str, tuple[object, dict[str, str]]] = {}

    # -- places ------------------------------------------------------------------------------------------------

    def is_place(self, path: str) -> bool:
        """Whether `path` is /queue, or another name for it."""
        return path == PLACE or path in self._made

    def name(self, path: str) -> str | None:
        """The last part of `path`, if what is before it is a place."""
        parts = PurePosixPath(path)
        return parts.name if self.is_place(str(parts.parent)) else None

    def make(self, path: str) -> bool:
        """Make a place; whether that could be done."""
        if self.name(path) is None or self.find(path) is not None or len(self._made) >= _MOST_MADE:
            return False
        self._made.add(path)
        return True

    def unmake(self, path: str) -> bool:
        """Remove a place that was made here; whether there was one."""
        was_made = path in self._made
        self._made.discard(path)
        return was_made

    # -- what is there -----------------------------------------------------------------------------------------

    def entries(self, path: str) -> Iterator[tuple[str, os.stat_result]]:
        """All that is in a place, with its name, in no order. Each is looked at when it is asked for; for any thread.

        What the session knows is settled when the first one is asked for: that is for the loop's thread.
        """
        records, names, sent = self._spool.records("queue"), self._names("queue"), dict(self._sent)
        begun = {partial.name: _of_partial(partial) for partial in self._partials.of(self.contributor)}
        made = [PurePosixPath(made) for made in self._made]
        own = [(job_id if name in begun else name, job_id) for name, job_id in names.items()]
        shown = {place.name: _DIRECTORY for place in made if str(place.parent) == path}
        shown |= {name: status for name, status in begun.items() if status is not None and name not in shown}
        yield from shown.items()
        seen = set(shown)
        for name, job_id in own:
            if name not in seen and self._is_waiting(job_id):
                seen.add(name)
                yield name, _status(records.get(job_id))
        for name, (_, status) in sent.items():
            if name not in seen:
                seen.add(name)
                yield name, status
        for name, record in records.items():
            if name not in seen and not self._is_own(record):
                yield name, _status(record)

    def find(self, path: str) -> os.stat_result | None:
        """What is at `path`, the same as in `entries`, or a waiting job by its id; None if nothing is."""
        if path in self._made:
            return _DIRECTORY
        name = self.name(path)
        if name is None:
            return None
        partial = self._partials.find(self.contributor, name)
        if partial is not None:
            return _of_partial(partial)
        records = self._spool.records("queue")
        job_id = self._names("queue").get(name, name)
        if job_id in records and self._is_waiting(job_id):
            return _status(records[job_id])
        return self._sent[name][1] if name in self._sent else None

    def stat(self, path: str) -> os.stat_result:
        """The same; raises FileNotFoundError if nothing is there."""
        found = self.find(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return found

    # -- whose it is -------------------------------------------------------------------------------------------

    def job(self, name: str) -> str | None:
        """The id of the contributor's waiting or running job of this name or id, or of what this session has sent."""
        sent = self._sent.get(name, ("",))[0]
        return self._own_id("queue", name) or sent or self._own_id("running", name)

    def _own_id(self, state: str, name: str) -> str | None:
        if name in self._names(state):
            return self._names(state)[name]
        return name if self._is_own(self._spool.records(state).get(name)) else None

    def _names(self, state: str) -> dict[str, str]:
        """The contributor's jobs in a state by the names they are shown by."""
        records = self._spool.records(state)
        seen, names = self._named.get(state, (None, {}))
        if seen is not records:
            names = {}
            own = [
                (record.received, job_id, record.filename)
                for job_id, record in records.items()
                if record is not None and self._is_own(record)
            ]
            for _, job_id, filename in sorted(own):
                if filename in names:
                    names[names[filename]] = names[filename]
                names[filename or job_id] = job_id
            self._named[state] = records, names
        return names

    def _is_own(self, record: Record | None) -> bool:
        return record is not None and record.contributor == self.contributor

    def _is_waiting(self, job_id: str) -> bool:
        # Cancelled, it is gone for its contributor, although the runner has not said so yet.
        return not Job(self._spool.state("queue") / job_id).is_cancelled()

    # -- what this session has sent ------------------------------------------------------------------------------

    def note_conclusion(self, who: str, name: str, size_bytes: int, concluded: Conclusion) -> None:
        """Remember and log what became of what `who` has sent as `name`."""
        log.info("%s: %a, %d bytes: %s", who, name, size_bytes, concluded.reply, extra={"job": concluded.job_id})
        self.failed.discard(name)
        if concluded.job_id:
            self._sent[name] = concluded.job_id, _file(size_bytes, time.time())
        elif not concluded.reply.is_success:
            self.failed.add(name)

    def note_gone(self, job_id: str) -> None:
        """Show no longer what was cancelled."""
        self._sent = {name: sent for name, sent in self._sent.items() if sent[0] != job_id}

    def rename_sent(self, name: str, new_name: str) -> str | None:
        """Show what this session has sent by another name; its job's id, or None if nothing of that name was sent."""
        if name not in self._sent:
            return None
        self._sent[new_name] = self._sent.pop(name)
        return self._sent[new_name][0]

    def sent(self) -> Iterator[tuple[str, int]]:
        """Name and size of all that this session has sent."""
        return ((name, status.st_size) for name, (_, status) in self._sent.items())


def _file(size_bytes: int, time_s: float) -> os.stat_result:
    return _made_up(stat.S_IFREG | 0o444, size_bytes, time_s)


def _made_up(mode: int, size_bytes: int, time_s: float) -> os.stat_result:
    return os.stat_result((mode, 0, 0, 1, 0, 0, size_bytes, time_s, time_s, time_s))


def _status(record: Record | None) -> os.stat_result:
    return _file(record.upload_bytes, record.received.timestamp()) if record else _file(0, 0)


def _of_partial(partial: Partial) -> os.stat_result | None:
    try:
        return partial.status()
    except OSError:
        return None


_DIRECTORY = _made_up(stat.S_IFDIR | 0o755, 0, 0)
