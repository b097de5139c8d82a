"""A job's states. The parent directory is the state, and every rename of a job happens here.

    <spool>/incoming  queue  running  done  layers  trash   lock
               upload  job.json  attempts  disk.img  logs   result.json
    incoming     ?        ?         -         -        -         -
    queue        +        +         ?         -        -         -
    running      +        +         +         ?        ?         ?
    done         -        +         -         -        +         +   (+ image, sums)
    trash      anything; only ever deleted

A rename is followed by fsync of both parents before anyone is told. A crash may run a job twice; it
never loses one and never publishes two results. The spool never opens an upload, and starts no program.
"""

import errno
import fcntl
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Self

import msgspec

from construir_ftp import disk, jobfile, turns
from construir_ftp.errors import ConstruirError
from construir_ftp.turns import Turns

STATES = ("incoming", "queue", "running", "done", "layers", "trash")
MAX_ATTEMPTS = 3


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """job.json: what is known of a job when it is admitted. Sizes in bytes, times aware UTC."""

    version: int = 1
    name: str
    contributor: str
    codec: str
    filesystem: str
    upload_bytes: int
    image_bytes: int
    upload_sha256: str
    received: datetime


class Job:
    """A job's directory in whatever state it is; moving it gives a new Job, and the old one must be dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def id(self) -> str:
        """The directory's name: sorted by arrival, never parsed."""
        return self.path.name

    @property
    def upload(self) -> Path:
        """The file as the contributor sent it."""
        return self.path / "upload"

    @property
    def disk(self) -> Path:
        """The unpacked image, the machine's second disk."""
        return self.path / "disk.img"

    @property
    def result(self) -> Path:
        """result.json: written last, so its presence says that the job is finished."""
        return self.path / "result.json"

    def ticket(self) -> Ticket:
        """What was known when the job was admitted. Raises ConstruirError if job.json is damaged."""
        path = self.path / "job.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Ticket)
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:  # ValueError: it isn't UTF-8
            raise ConstruirError(f"job {self.id}: job.json can't be read: {error}") from error

    def contributor(self) -> str:
        """Who sent it; empty if job.json is damaged: that must not stop the queue, and the job gets its turn too."""
        try:
            return self.ticket().contributor
        except ConstruirError:
            return ""

    def attempts(self) -> int:
        """How often a machine was started for this job: the length of `attempts`, one byte each."""
        try:
            return (self.path / "attempts").stat().st_size
        except FileNotFoundError:
            return 0

    def count_attempt(self) -> None:
        """Note, on stable storage, that a machine is about to be started for this job."""
        with (self.path / "attempts").open("ab") as file:
            file.write(b".")
            file.flush()
            os.fsync(file.fileno())
        disk.fsync(self.path)

    def forgive_attempt(self) -> None:
        """Take back the last count_attempt: the machine was ended by a stop of the appliance, by nobody's fault."""
        os.truncate(self.path / "attempts", max(0, self.attempts() - 1))

    def strip(self) -> None:
        """Delete all that a run left, so that the job can run again: upload, job.json and attempts stay."""
        for entry in self.path.iterdir():
            if entry.name in ("upload", "job.json", "attempts"):
                continue
            disk.remove(entry)


class Spool:
    """The directory all parts meet in. Safe to use from several threads and processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._contributors: dict[str, str] = {}
        self._turns = Turns(path / "turns")

    @classmethod
    def prepare(cls, path: Path) -> Self:
        """The spool at `path`, its directories made where they are missing. Raises ConstruirError."""
        try:
            missing = [path / state for state in STATES if not (path / state).is_dir()]
            for directory in missing:
                directory.mkdir(parents=True, exist_ok=True)
            if missing:
                disk.fsync(path)
                disk.fsync(path.parent)
        except OSError as error:
            raise ConstruirError(
                f"spool {path}: {error.strerror}: {error.filename}; choose another with --spool, or make it writable"
            ) from error
        return cls(path)

    @classmethod
    def find(cls, path: Path) -> Self:
        """The spool at `path`, which has to be there. Raises ConstruirError."""
        if not (path / "queue").is_dir():
            raise ConstruirError(f"no spool at {path}; name it with --spool, or make one with: construir serve")
        return cls(path)

    def state(self, state: str) -> Path:
        """The directory that holds every job in `state`."""
        return self.path / state

    def jobs(self, state: str) -> list[Job]:
        """Every job in `state`, oldest first. What isn't a directory, such as a planted symbolic link, is no job."""
        directory = self.state(state)
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        return [Job(directory / name) for name in names]

    # -- incoming -> queue ---------------------------------------------------------------------------

    def receive(self) -> Job:
        """An empty place in incoming/, under a name nobody else has, for an upload to be written to."""
        path = self.state("incoming") / secrets.token_hex(8)
        path.mkdir(mode=0o700)
        return Job(path)

    def admit(self, job: Job, ticket: Ticket, last_look: Callable[[], None] = lambda: None) -> Job:
        """incoming -> queue, under the id that names the job from now on; on return it survives a power cut.

        The upload is in place and whole. Whoever waits for work is woken.
        """
        disk.fsync(job.upload)
        disk.write_durably(job.path / "job.json", msgspec.json.encode(ticket))
        job.path.chmod(0o755)
        disk.fsync(job.path)
        last_look()
        queued = self._enqueue(job, ticket)
        self.wake()
        return queued

    def _enqueue(self, job: Job, ticket: Ticket) -> Job:
        # An id can be taken: its random part is 16 bits. rename(2) then fails, since no job's directory is empty.
        while True:
            try:
                return self._move(job, "queue", jobfile.new_id(ticket.name, ticket.received))
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise

    # -- queue -> running -> done ----------------------------------------------------------------------

    def line(self) -> Iterator[Job]:
        """Every waiting job in the order of their turns (see turns), the next one first."""
        waiting, running = self.jobs("queue"), self.jobs("running")
        # A ticket never changes, and ten thousand waiting jobs would otherwise be read at every turn.
        known = self._contributors
        of = self._contributors = {job.id: known.get(job.id) or job.contributor() for job in (*waiting, *running)}
        served = self._turns.served()
        ids = turns.order([(of[job.id], job.id) for job in waiting], [of[job.id] for job in running], served)
        return (Job(self.state("queue") / job_id) for job_id in ids)

    def take(self) -> Job | None:
        """queue -> running: the next job; None if none waits.

        Only the holder of the lock takes; but a contributor may cancel a waiting job at any moment.
        """
        while (job := next(self.line(), None)) is not None:
            try:
                taken = self._move(job, "running")
            except FileNotFoundError:
                if job.path.exists():
                    raise
                continue
            self._turns.note(taken.contributor())
            return taken
        return None

    def requeue(self, job: Job) -> Job:
        """running -> queue, stripped: the job keeps its id, and so its place."""
        job.strip()
        return self._move(job, "queue")

    def finish(self, job: Job, result: bytes) -> Job:
        """running -> done: writes result.json last, so that what is visible in done/ is complete and on stable storage.

        What done/ doesn't hold goes only then: a crash before must leave a job that can run again. After an OSError,
        such as ENOSPC, the job is still running, and finish can be called again.
        """
        for entry in job.path.rglob("*"):
            if entry not in (job.upload, job.disk):
                disk.fsync(entry)
        disk.replace_durably(job.result, result)
        return self._publish(job)

    def _publish(self, job: Job) -> Job:
        for leftover in (job.upload, job.disk, job.path / "attempts"):
            leftover.unlink(missing_ok=True)
        disk.fsync(job.path)
        return self._move(job, "done")

    def recover(self) -> list[Job]:
        """After a crash: running/ with a result -> done/, otherwise back to queue/. Returns what was requeued.

        Only under the lock: nobody else may be running jobs of this spool.
        """
        requeued = []
        for job in self.jobs("running"):
            if job.result.exists():
                self._publish(job)
            else:
                requeued.append(self.requeue(job))
        return requeued

    # -- anything -> trash ------------------------------------------------------------------------------

    def delete(self, job: Job) -> None:
        """Any state -> trash for good, then removed; a crash between the two leaves it to sweep_trash."""
        with suppress(FileNotFoundError):
            disk.remove(self._move(job, "trash", f"{job.id}.{secrets.token_hex(4)}").path)

    def sweep_trash(self) -> None:
        """Remove what an interrupted delete left; what can't be removed stays for the next sweep."""
        for entry in self.state("trash").iterdir():
            with suppress(OSError):
                disk.remove(entry)

    # -- all of it ---------------------------------------------------------------------------------------

    def _move(self, job: Job, state: str, name: str | None = None) -> Job:
        target = self.state(state) / (name or job.id)
        job.path.rename(target)
        disk.fsync(target.parent)
        disk.fsync(job.path.parent)
        return Job(target)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the right to run jobs of this spool (flock(2) on `lock`). Raises ConstruirError if another does."""
        with (self.path / "lock").open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConstruirError(
                    f"another runner already works on {self.path}; stop it, or choose another with --spool"
                ) from error
            yield

    @contextmanager
    def _wake_address(self) -> Iterator[str]:
        # An address longer than 107 bytes does not fit into sockaddr_un (unix(7)): go by way of the directory.
        directory = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{directory}/wake"
        finally:
            os.close(directory)

    def wake(self) -> None:
        """Tell the runner that there is work. Nobody listening is no error: the runner looks when it starts."""
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender,
            self._wake_address() as address,
            suppress(OSError),
        ):
            sender.sendto(b"!", address)

    @contextmanager
    def listen(self) -> Iterator[socket.socket]:
        """The socket that wake() speaks to: a datagram, whatever it holds, means work. For the lock's holder only."""
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as receiver,
            self._wake_address() as address,
        ):
            (self.path / "wake").unlink(missing_ok=True)
            receiver.bind(address)
            # Sending needs write permission (unix(7)), and the FTP server may be another user; all it says is: look.
            Path(address).chmod(0o666)
            yield receiver
