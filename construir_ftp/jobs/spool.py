"""A job's states. The parent directory is the state, and every rename of a job happens here.

    <spool>/incoming  queue  running/NODE.BOOT  done  layers  trash   lock
               upload  job.json  attempts  cancel  disk.img  logs   result.json
    incoming     ?        ?         -         -        -       -         -
    queue        +        +         ?         ?        -       -         -
    running      +        +         +         ?        ?       ?         ?
    done         -        +         -         -        -       +         +   (+ image, sums)
    trash      anything; only ever deleted

`cancel` says that somebody wants no more of it (see cancellation). Anyone may put it there. Only nodes, which run jobs,
move one that was admitted (see claims); what else there is to be done for all nodes, the lock's holder does.

A rename is followed by fsync of both parents before anyone is told. A crash may run a job twice; it
never loses one and never publishes two results. The spool never opens an upload, and starts no program.
"""

import os
import secrets
import socket
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from construir_ftp import files
from construir_ftp.errors import ConstruirError
from construir_ftp.jobs import cancellation, claims, fair_share, ipc, modes, names, places, spool_format
from construir_ftp.jobs.claims import Claims
from construir_ftp.jobs.fair_share import Turns, needs_any, sender_of, weights_of
from construir_ftp.jobs.job import CANCEL, CONTRIBUTOR, Job, Record, Records, Wants, anyone, read_record

__all__ = ["MAX_ATTEMPTS", "STATES", "Job", "Record", "Spool"]

STATES = ("incoming", "queue", "running", "done", "layers", "trash")
MAX_ATTEMPTS = 3


class Staged(NamedTuple):
    """An upload that waits for no more than its rename into queue/."""

    job: Job
    record: Record


class Spool:
    """The directory all parts meet in. Safe to use from several threads and processes; what is taken, is taken by
    `node`.
    """

    def __init__(self, path: Path, node: str = places.LOCAL) -> None:
        self.path = path
        self.claims = Claims(path, node)
        self._turns = Turns(path / "turns")
        self._records = Records(path)

    @classmethod
    def prepare(cls, path: Path, node: str = places.LOCAL) -> Self:
        """The spool at `path`, its directories made where they are missing. Raises ConstruirError."""
        spool_format.check(path)
        try:
            missing = [path / state for state in STATES if not (path / state).is_dir()]
            for directory in missing:
                directory.mkdir(parents=True, exist_ok=True)
                directory.chmod(modes.EVERYONES_DIRECTORY)
            for parent in (path, path.parent) if missing else ():
                files.fsync(parent)
            spool_format.note(path)
        except OSError as error:
            raise ConstruirError(
                f"spool {path}: {error.strerror}: {error.filename}; choose another with --spool, or make it writable"
            ) from error
        return cls(path, node)

    @classmethod
    def find(cls, path: Path, node: str = places.LOCAL) -> Self:
        """The spool at `path`, which has to be there. Raises ConstruirError."""
        if not (path / "queue").is_dir():
            raise ConstruirError(f"no spool at {path}; name it with --spool, or make one with: construir serve")
        spool_format.check(path)
        return cls(path, node)

    def state(self, state: str) -> Path:
        """The directory of a state; what runs is a level further down."""
        return self.path / state

    def names(self, state: str) -> list[str]:
        """The id of every job in `state`, oldest first. What isn't a directory, such as a symbolic link, is no job."""
        return places.names(self.path, state)

    def jobs(self, state: str) -> list[Job]:
        """Every job in `state`, oldest first."""
        return [Job(path) for path in places.jobs(self.path, state)]

    def find_job(self, state: str, job_id: str) -> Job | None:
        """A job, if it is in `state`."""
        path = places.find(self.path, state, job_id)
        return Job(path) if path else None

    # -- incoming -> queue ---------------------------------------------------------------------------

    def receive(self) -> Job:
        """An empty place in incoming/, under a name nobody else has, for an upload to be written to."""
        path = self.state("incoming") / secrets.token_hex(8)
        path.mkdir(mode=modes.OURS_DIRECTORY)
        return Job(path)

    def stage(self, job: Job, record: Record) -> Staged:
        """An upload that is in place and whole, and what is known of it: written, and on stable storage, in incoming/.

        It is followed by `enqueue` or by `unstage`. Whatever is raised: what is in incoming/ is as it was.
        """
        job.upload.chmod(modes.OURS)
        files.fsync(job.upload)
        staged = Staged(job, record)
        try:
            files.write_durably(job.path / "job.json", msgspec.json.encode(record), modes.OURS)
            files.fsync(job.path)
        except BaseException:
            self.unstage(staged)
            raise
        return staged

    def unstage(self, staged: Staged) -> None:
        """Have it in incoming/ as it was before it was staged."""
        (staged.job.path / "job.json").unlink(missing_ok=True)

    def enqueue(self, staged: Staged) -> Job:
        """incoming -> queue, under the id that names the job from now on; on return it survives a power cut.

        Whoever waits for work is woken. If it raises, the job is still staged.
        """
        queued = self._enqueue(staged.job, staged.record)
        self.wake()
        return queued

    def _enqueue(self, job: Job, record: Record) -> Job:
        # An id can be taken.
        received = record.received
        while True:
            try:
                return claims.move_or_leave(job, self.state("queue") / names.new_id(record.name, received))
            except OSError as error:
                if error.errno not in claims.IS_TAKEN:
                    raise
                received += names.STEP

    # -- queue -> running -> done ----------------------------------------------------------------------

    def records(self, state: str) -> dict[str, Record | None]:
        """The record of each job that waits ("queue") or runs ("running"), oldest first; None where it is damaged.

        While nothing has come or gone the same dictionary is returned again: it is to be read only.
        """
        return self._records.read(state)

    def line(self) -> Iterator[str]:
        """The id of every waiting job in the order of their turns (see turns), the next one first.

        A job whose record is damaged must not stop the queue: it gets its turn, as nobody's.
        """
        waiting = [(sender_of(record), name) for name, record in self.records("queue").items()]
        running = [sender_of(record) for record in self.records("running").values()]
        weights = weights_of(self.records("queue").values())
        return fair_share.order(waiting, running, self._turns.served(), weights, self._turns.begun())

    def next_id(self, wants: Wants = anyone) -> str | None:
        """The id of the waiting job whose turn it is among those that are wanted and wait for no result."""
        waiting, running = self.records("queue"), self.records("running")
        oldest: dict[str, str] = {}
        for name, record in waiting.items():
            sender = sender_of(record)
            if sender not in oldest and wants(record) and not needs_any(record, waiting, running):
                oldest[sender] = name
        weights = weights_of(waiting.values())
        return fair_share.first(oldest, map(sender_of, running.values()), self._turns.served(), weights)

    def take(self, wants: Wants = anyone) -> Job | None:
        """queue -> running: the next job of those that are wanted, if one waits.

        It may have been deleted since it was seen, or another node has it; then it is another one's turn.
        """
        if self.next_id(wants) is None:
            return None
        with self._turns.held():
            while (name := self.next_id(wants)) is not None:
                if (taken := self.claims.claim(name)) is not None:
                    record = read_record(taken.path)
                    self._turns.note(sender_of(record), record.weight if record else 1)
                    return taken
        return None

    def withdraw(self) -> list[Job]:
        """queue -> running: all waiting jobs that are to be cancelled, out of turn. Only for the holder of the lock."""
        queue = os.open(self.state("queue"), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # By descriptor, since there may be ten thousand of them.
            anew = not files.is_local(self.path)
            names = [name for name in self.names("queue") if cancellation.is_asked(queue, name, anew=anew)]
        finally:
            os.close(queue)
        return [job for job in map(self.claims.claim, names) if job is not None]

    def cancel(self, job_id: str, whose: str = CONTRIBUTOR) -> None:
        """Ask for the end of a job that waits or runs; on return the wish survives a power cut, and whoever holds the
        lock is woken. Raises FileNotFoundError if the job neither waits nor runs, or has come to its end meanwhile.
        """
        cancellation.ask(self.path, job_id, whose)
        self.wake(ipc.CANCELLED)

    def requeue(self, job: Job) -> Job:
        """running -> queue, stripped: the job keeps its id, and so its place."""
        job.strip()
        job.leave_scratch()
        return self._move(job, "queue")

    def finish(self, job: Job, result: bytes) -> Job:
        """running -> done: writes result.json last, so that what is visible in done/ is complete and on stable storage.

        What done/ doesn't hold goes only then: a crash before must leave a job that can run again. After an OSError,
        such as ENOSPC, the job is still running, and finish can be called again.
        """
        for entry in job.path.rglob("*"):
            if entry not in (job.upload, job.disk):
                entry.chmod(modes.EVERYONES_DIRECTORY if entry.is_dir() else modes.EVERYONES)
                files.fsync(entry)
        files.replace_durably(job.result, result)
        return self._publish(job)

    def _publish(self, job: Job) -> Job:
        for leftover in (job.upload, job.disk, job.path / "attempts", job.path / CANCEL):
            leftover.unlink(missing_ok=True)
        job.leave_scratch()
        job.path.chmod(modes.EVERYONES_DIRECTORY)
        files.fsync(job.path)
        done = self._move(job, "done")
        # It may have come at the last moment; from now on cancel sees that it is too late.
        (done.path / CANCEL).unlink(missing_ok=True)
        return done

    def recover(self) -> list[Job]:
        """After a crash: what earlier starts of this node held goes to done/ if it has a result, otherwise back to
        queue/. Returns what was requeued.

        Only for who knows that none of them lives.
        """
        requeued: list[Job] = []
        for job in (*self.jobs("queue"), *self.jobs("running")):
            with suppress(FileNotFoundError):  # an older version left them open; one may be deleted meanwhile
                job.path.chmod(modes.OURS_DIRECTORY)
        self.claims.take_earlier(lambda job: requeued.extend(self._settle(job, self.requeue)))
        return requeued

    def take_back(self, holding: Path, but: Container[str] = ()) -> list[Job]:
        """The same, of a node's start that is no longer trusted to live, and may do so all the same, `but` those."""
        requeued: list[Job] = []
        self.claims.take_from(holding, lambda job: requeued.extend(self._settle(job, self._requeue_renewed)), but)
        return requeued

    def _requeue_renewed(self, job: Job) -> Job:
        return self.requeue(self.claims.renewed(job))

    def _settle(self, job: Job, requeue: Callable[[Job], Job]) -> list[Job]:
        if not files.is_there(job.result):
            return [requeue(job)]
        self._publish(job)
        return []

    # -- anything -> trash ------------------------------------------------------------------------------

    def delete(self, job: Job) -> None:
        """Any state -> trash for good, under a name that fits, then removed; a crash in between is for sweep_trash."""
        with suppress(FileNotFoundError):
            files.remove(self._move(job, "trash", secrets.token_hex(8)).path)

    def sweep_trash(self) -> None:
        """Remove what an interrupted delete, or a process killed while it wrote a file of the spool, has left.

        What can't be removed stays for the next sweep.
        """
        for entry in self.state("trash").iterdir():
            with suppress(OSError):
                files.remove(entry)
        for directory in (self.path, *self.path.glob("nodes/*/")):
            with suppress(OSError):
                files.sweep_drafts(directory)

    # -- all of it ---------------------------------------------------------------------------------------

    def _move(self, job: Job, state: str, name: str | None = None) -> Job:
        return claims.move(job, self.state(state) / (name or job.id))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the right to run jobs of this spool. Raises ConstruirError if another does."""
        with ExitStack() as stack:
            try:
                stack.enter_context(ipc.hold(self.path / "lock"))
            except BlockingIOError as error:
                raise ConstruirError(
                    f"another runner already works on {self.path}; stop it, or choose another with --spool"
                ) from error
            yield

    def is_locked(self) -> bool:
        """Whether somebody holds the right to run jobs of this spool."""
        return ipc.is_held(self.path / "lock")

    def wake(self, why: bytes = ipc.WORK) -> None:
        """Tell the runner that there is work. Nobody listening is no error: the runner looks when it starts."""
        ipc.ring(self.path / "wake", why)

    def listen(self) -> AbstractContextManager[socket.socket]:
        """The socket that wake() speaks to: a datagram, whatever it holds, means work. For the lock's holder only."""
        return ipc.listen(self.path / "wake")
