"""One try at running a job, and what becomes of the job by it."""

from pathlib import Path

import msgspec

from construir_ftp.errors import ConstruirError
from construir_ftp.jobs.result import Result, moment
from construir_ftp.jobs.spool import Job, Record
from construir_ftp.machine.ending import Ending
from construir_ftp.runner.allocation import Allocation


class Attempt(msgspec.Struct, kw_only=True):
    """A job that was taken, and its record; then what it was given, and how its machine ended, once it came to that."""

    job: Job
    record: Record
    allocation: Allocation | None = None
    ending: Ending | None = None

    @classmethod
    def of(cls, job: Job) -> "Attempt":
        """Of a job that was just taken. Raises ConstruirError where its record can't be read."""
        return cls(job=job, record=job.record())

    @classmethod
    def of_any(cls, job: Job) -> "Attempt":
        """The same; where its record can't be read, with one that says what is left to be said."""
        try:
            return cls.of(job)
        except ConstruirError:
            return cls(job=job, record=_unknown(job))


class Published(msgspec.Struct, frozen=True):
    """The job is in done/."""

    job: Job
    result: Result


class Requeued(msgspec.Struct, frozen=True):
    """The job is back in queue/. `fault` says what was wrong; empty if it was only told to stop. `hits_all` is whether
    that is the host's fault, which other jobs would meet, too.
    """

    job: Job
    fault: str
    hits_all: bool = True


def _unknown(job: Job) -> Record:
    return Record(
        name="job",
        contributor="",
        codec="raw",
        filesystem="",
        upload_bytes=job.upload.stat().st_size if job.upload.exists() else 0,
        image_bytes=0,
        upload_sha256="",
        received=moment(Path(job.path).stat().st_mtime),
    )
