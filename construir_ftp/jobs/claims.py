"""The jobs that one start of a node holds: it claims each by a rename into running/NODE.BOOT/, and of several that try
the same job one has it.

Whoever is no longer trusted to hold jobs loses them the same way: each is renamed out of its directory, so that it can
neither publish them nor give them back. Nothing here runs a job, and nothing here ends one but by what its directory
says.
"""

import errno
import os
import secrets
from collections.abc import Callable, Container
from contextlib import suppress
from pathlib import Path

from construir_ftp import files
from construir_ftp.jobs import modes, places
from construir_ftp.jobs.job import KEPT, Job

_FRESH = ".fresh-"
# What rename(2) says of a target that is there: no job's directory is empty.
IS_TAKEN = (errno.ENOTEMPTY, errno.EEXIST)


class Claims:
    """Those of one start of a node, of one spool. Its directory is made once: when that is gone, so is the right."""

    def __init__(self, spool: Path, node: str) -> None:
        self._spool, self._node = spool, node
        self.path = spool / "running" / places.new_holding(node)
        # Where the disks of our jobs are, if not with the jobs.
        self.scratch: Path | None = None
        self._has_begun = False

    def begin(self) -> None:
        """Have the directory. Only once."""
        if not self._has_begun:
            self.path.mkdir()
            self.path.chmod(modes.EVERYONES_DIRECTORY)
            files.fsync(self.path.parent)
            self._has_begun = True

    def close(self) -> None:
        """Leave nothing of it, if it holds no job."""
        with suppress(OSError):
            self.path.rmdir()

    def are_lost(self) -> bool:
        """Whether they were taken from us: whatever we still do to our jobs comes to nothing."""
        return self._has_begun and not files.is_there(self.path)

    def claim(self, job_id: str) -> Job | None:
        """queue -> running; None if it is no longer there to be had. Raises FileNotFoundError where claims are lost."""
        self.begin()
        job = self._claim(Job(self._spool / "queue" / job_id))
        if job is not None and self.scratch is not None:
            job.scratch = self.scratch / job_id
            with suppress(FileNotFoundError):  # what an attempt has left that was broken off
                files.remove(job.scratch)
            job.scratch.mkdir(mode=modes.OURS_DIRECTORY)
        return job

    def _claim(self, job: Job) -> Job | None:
        try:
            return move(job, self.path / job.id)
        except FileNotFoundError:
            if files.is_there(job.path):
                raise
            return None

    def take_earlier(self, settle: Callable[[Job], None]) -> None:
        """Take what earlier starts of this node have left, and what we hold ourselves, and `settle` each job of it."""
        self.begin()
        if self._node == places.LOCAL:
            for job_id in places.names_of_before(self._spool):
                self._claim(Job(self._spool / "running" / job_id))
        for holding in self._of_this_node():
            self.take_from(holding, settle)

    def _of_this_node(self) -> list[Path]:
        mine = [path for path in places.directories(self._spool, "running") if places.node_of(path) == self._node]
        return sorted(mine, key=lambda path: path == self.path)  # ours comes last

    def take_from(self, holding: Path, settle: Callable[[Job], None], but: Container[str] = ()) -> None:
        """Take all jobs of a node's start away from it, `but` those, and `settle` each, which is ours then. If it is
        not our own, it has none on return, and never will have any.

        A crash in the midst of it leaves them with us, for our next start.
        """
        self.begin()
        for entry in sorted(holding.iterdir()):
            if entry.name in but:
                continue
            if entry.name.startswith(_FRESH):
                self._finish_fresh(entry)
            elif (job := self._claim(Job(entry))) is not None:
                settle(job)
        if holding != self.path:
            with suppress(OSError):  # one came in the meantime; the next look is for it
                holding.rmdir()
            files.fsync(holding.parent)

    # -- another directory for the same job ------------------------------------------------------------------------

    # A node that was cut off may still hold the directory open, by way of a network file system. So what it writes
    # there must not come among what others write.

    def renewed(self, job: Job) -> Job:
        """The job in a directory that nobody else knows of, without what a run has left. The other goes to trash/."""
        fresh = self.path / f"{_FRESH}{job.id}"
        with suppress(FileNotFoundError):
            files.remove(fresh)
        fresh.mkdir(mode=modes.OURS_DIRECTORY)
        os.link(job.upload, fresh / job.upload.name)  # which nobody writes to
        for name in set(KEPT) - {job.upload.name}:
            with suppress(FileNotFoundError):
                files.copy(job.path / name, fresh / name)
                (fresh / name).chmod(modes.OURS)
                files.fsync(fresh / name)
        files.fsync(fresh)
        files.fsync(self.path)
        old = move(job, self._spool / "trash" / f"{job.id}.{secrets.token_hex(4)}")
        ours = move(Job(fresh), job.path)
        with suppress(OSError):  # the next sweep is for it
            files.remove(old.path)
        return ours

    def _finish_fresh(self, fresh: Path) -> None:
        """After a crash: it is whole if the one that it was made from is gone."""
        job_id = fresh.name.removeprefix(_FRESH)
        if (fresh.parent / job_id).exists():
            files.remove(fresh)
        else:
            move(Job(fresh), self._spool / "queue" / job_id)


def move(job: Job, target: Path) -> Job:
    """Rename a job; on return that survives a power cut."""
    files.move_durably(job.path, target)
    return Job(target)


def move_or_leave(job: Job, target: Path) -> Job:
    """Like move, but where it raises the job is where it was: a rename that may not survive a power cut is undone.

    If a node was quicker, and has taken the job, nothing is raised: by that it has put the same two directories on
    stable storage, or has failed to do so itself.
    """
    try:
        return move(job, target)
    except OSError as error:
        if error.errno not in IS_TAKEN:
            with suppress(OSError):
                move(Job(target), job.path)
            if not files.is_there(job.path):
                return Job(target)
        raise
