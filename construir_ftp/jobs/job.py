"""A job's directory and its record, whatever state the job is in. Which states there are, only the package knows."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec

from construir_ftp import files, schema
from construir_ftp.errors import ConstruirError
from construir_ftp.formats import FORMATS
from construir_ftp.jobs import places, result
from construir_ftp.jobs.result import Result, Signer

# The marker of a job that is to be cancelled.
CANCEL = "cancel"
# Who may ask for that, as the marker has it, and a result's reason.
CONTRIBUTOR, OPERATOR = "its contributor", "the operator"
# What a job keeps whatever becomes of it, until it is done.
KEPT = ("upload", "job.json", "attempts", CANCEL)


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """job.json: what is known of a job when it is admitted. Sizes in bytes, times aware UTC.

    `name` is what the result is called by, `filename` what the upload was called, `space_bytes` by how much its
    image may have to grow, `artifacts_bytes` what may be taken out of it as files, `after` the jobs whose results it
    needs, `installs` whether it needs Debian packages. `padding_bytes` zeros follow the stream in the upload.
    `newest_s` is when the newest file in it was changed, in seconds since 1970, 0 where that is not to be told.
    `weight` is that of the contributor, when it came (see fair_share). `source_signers` is who has signed what dput has
    sent, if it was made of that.
    """

    version: int = 1
    name: str
    filename: str = ""
    contributor: str
    codec: str
    filesystem: str
    upload_bytes: int
    padding_bytes: int = 0
    image_bytes: int
    upload_sha256: str
    received: datetime
    construir_toml: str = ""
    space_bytes: int = 0
    artifacts_bytes: int = 0
    after: list[str] = []
    installs: bool = False
    newest_s: int = 0
    weight: int = 1
    source_signers: tuple[Signer, ...] = ()

    def image_name(self) -> str:
        """What the result's image is called: <name>.img and the suffix of the codec it came in."""
        return f"{self.name}.img{FORMATS[self.codec].suffix}"


# Which jobs somebody takes, by their records; None is a damaged one.
Wants = Callable[[Record | None], bool]


def anyone(_: Record | None) -> bool:
    """Every job."""
    return True


def installs(record: Record | None) -> bool:
    """A job that needs Debian packages."""
    return record is not None and record.installs


class Job:
    """A job's directory in whatever state it is; moving it gives a new Job, and the old one must be dropped. What its
    machine works on is in `scratch`, if there is one, on a file system of this computer.
    """

    def __init__(self, path: Path, scratch: Path | None = None) -> None:
        self.path, self.scratch = path, scratch

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
        return (self.scratch or self.path) / "disk.img"

    @property
    def result(self) -> Path:
        """result.json: written last, so its presence says that the job is finished."""
        return self.path / "result.json"

    def record(self) -> Record:
        """What was known when the job was admitted. Raises ConstruirError if job.json is damaged."""
        path = self.path / "job.json"
        try:
            return schema.from_json(path.read_bytes(), Record)
        except (OSError, msgspec.MsgspecError) as error:
            raise ConstruirError(f"job {self.id}: job.json can't be read: {error}") from error

    def sender(self) -> str:
        """The contributor who sent it; in words, if its record is damaged."""
        record = read_record(self.path)
        return record.contributor if record else "nobody known"

    def is_cancelled(self) -> bool:
        """Whether somebody has asked for its end; see cancellation."""
        return files.is_there(self.path / CANCEL)

    def cancelled_by(self) -> str:
        """Who has asked for its end."""
        try:
            return files.read_anew(self.path / CANCEL).decode() or CONTRIBUTOR
        except OSError:
            return CONTRIBUTOR

    def attempts(self) -> int:
        """How often a machine was started for this job: the length of `attempts`, one byte each.

        It is read, since another host may have counted: NFS asks its server when a file is opened, and tells of its
        length what it has known for seconds.
        """
        try:
            return len((self.path / "attempts").read_bytes())
        except FileNotFoundError:
            return 0

    def count_attempt(self) -> None:
        """Note, on stable storage, that a machine is about to be started for this job."""
        with (self.path / "attempts").open("ab") as file:
            file.write(b".")
            file.flush()
            os.fsync(file.fileno())
        files.fsync(self.path)

    def forgive_attempt(self) -> None:
        """Take back the last count_attempt: the machine was ended by a stop of the appliance, by nobody's fault."""
        os.truncate(self.path / "attempts", max(0, self.attempts() - 1))

    def strip(self) -> None:
        """Delete all that a run left, so that the job can run again."""
        for entry in self.path.iterdir():
            if entry.name not in KEPT:
                files.remove(entry)
        for entry in self.scratch.iterdir() if self.scratch else ():
            files.remove(entry)

    def leave_scratch(self) -> None:
        """Remove what its machine worked on elsewhere: it runs no more, or not here."""
        if self.scratch:
            with suppress(FileNotFoundError):
                files.remove(self.scratch)


def disk_of_result(job: Job, number: int | str) -> Path:
    """Where the unpacked image is of a result that a job which runs depends on."""
    return (job.scratch or job.path) / f"dependency-{number}.img"


def disks_of_results(job: Job) -> list[Path]:
    """Those that are there."""
    return list(job.path.glob(disk_of_result(job, "*").name))


def read_result(job: Job) -> Result:
    """The result of a job that is done. Raises ConstruirError where there is none that can be read."""
    try:
        return result.decode(job.result.read_bytes())
    except (OSError, msgspec.MsgspecError) as error:
        raise ConstruirError(f"job {job.id}: its result can't be read: {error}") from error


# -- records -----------------------------------------------------------------------------------------------------

# The records of all jobs that wait or run, each read once, for there may be ten thousand of them.


class Records:
    """Those of one spool. Safe to use from several threads."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        # By state; with the directories that were read, and when each was changed.
        self._found: dict[str, tuple[_Marks, dict[str, Record | None]]] = {}

    def read(self, state: str) -> dict[str, Record | None]:
        """Those in `state`, oldest first; None where one is damaged. The same dictionary while nothing changes."""
        marks = self._marks(state)
        seen = self._found.get(state)
        if seen and seen[0] == marks and None not in marks.values():
            return seen[1]
        known = seen[1] if seen else {}
        found = {name: record for place in marks for name, record in self._read_in(place, known)}
        found = dict(sorted(found.items()))
        self._found = {**self._found, state: (marks, found)}
        return found

    def _marks(self, state: str) -> "_Marks":
        marks: _Marks = {}
        for directory in places.directories(self._spool, state):
            with suppress(FileNotFoundError):  # of a node that has just ended
                marks[str(directory)] = files.changed_ns(directory)
        return marks

    def _read_in(self, place: str, known: dict[str, Record | None]) -> Iterator[tuple[str, Record | None]]:
        directory = Path(place)
        with suppress(FileNotFoundError):
            for name in os.listdir(directory):  # noqa: PTH208 - not a Path for each of ten thousand
                if name in known or _is_job(directory, name):
                    yield name, known.get(name) or self._first_seen(directory, name)

    def _first_seen(self, directory: Path, name: str) -> Record | None:
        """That of a job which has just come, perhaps from another state."""
        moved = (records[name] for _, records in self._found.values() if name in records)
        return next(moved, None) or read_record(directory / name)


# Directories, and when each was changed; None where what was found there may be old by now.
_Marks = dict[str, int | None]


def read_record(job: Path) -> Record | None:
    """The record of one job; None if it is damaged."""
    try:
        return Job(job).record()
    except ConstruirError:
        return None


def _is_job(directory: Path, name: str) -> bool:
    place = directory / name
    return not name.startswith(".") and place.is_dir() and not place.is_symlink()
