"""What a finished job leaves in done/: all that its result.json says, and SHA256SUMS. Nothing here runs a machine."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from construir_ftp.errors import one_line
from construir_ftp.jobs.result import (
    ARTIFACTS,
    CONSOLE,
    INSTALL,
    OUTPUT,
    SUMS,
    WISHES,
    BaseImageUsed,
    Measured,
    Result,
    encode,
    moment,
)
from construir_ftp.jobs.spool import Job, Record, Spool
from construir_ftp.machine.outcome import Outcome
from construir_ftp.machine.vm import Ending
from construir_ftp.runner.allocation import Allocation
from construir_ftp.runner.artifacts import Artifacts
from construir_ftp.runner.attempt import Attempt, Published

_NO_ARTIFACTS = Artifacts()


def publish(spool: Spool, attempt: Attempt, ended: Outcome, taken: Artifacts = _NO_ARTIFACTS) -> Published:
    """running -> done: write result.json and SHA256SUMS, and have the job where anyone sees it.

    `taken` is in artifacts/ already. Raises OSError, with the job still running.
    """
    result = describe(attempt, ended, taken)
    encoded = encode(result)
    write_sums(attempt, taken, encoded)
    return Published(spool.finish(attempt.job, encoded), result)


def describe(attempt: Attempt, ended: Outcome, taken: Artifacts) -> Result:
    """All that result.json says."""
    job, record = attempt.job, attempt.record
    image = record.image_name()
    result = Result(
        id=job.id,
        name=record.name,
        contributor=record.contributor,
        status=ended.status,
        reason=one_line(ended.reason),
        exit_code=ended.exit_code,
        image=image if (job.path / image).exists() else None,
        codec=record.codec,
        filesystem=record.filesystem,
        upload_sha256=record.upload_sha256,
        upload_bytes=record.upload_bytes,
        image_bytes=job.disk.stat().st_size if job.disk.exists() else record.image_bytes,
        received=record.received,
        published=datetime.now(UTC),
        attempt=job.attempts(),
        artifacts=taken.files,
        artifacts_left_out=taken.left_out,
    )
    if attempt.allocation is None or attempt.ending is None:
        return result
    return _with_run(result, attempt.allocation, attempt.ending)


def _with_run(result: Result, allocation: Allocation, ending: Ending) -> Result:
    shape = allocation.shape
    return msgspec.structs.replace(
        result,
        booted=moment(ending.booted),
        started=_maybe(ending.started),
        first_output=_maybe(ending.first_output),
        ended=moment(ending.ended),
        accelerator=shape.accelerator,
        boot_path=ending.boot_path,
        base_image=BaseImageUsed(shape.base.name, shape.base.manifest.digest()),
        memory_bytes=shape.memory_bytes,
        cpus=shape.cpus,
        used=allocation.used(),
        claimed=ending.claims,
        measured=Measured(
            **msgspec.structs.asdict(ending.usage),
            output_bytes=ending.output_bytes,
            qemu_status=ending.status,
        ),
    )


def _maybe(seconds: float | None) -> datetime | None:
    return None if seconds is None else moment(seconds)


def write_sums(attempt: Attempt, taken: Artifacts, result: bytes) -> None:
    """Write SHA256SUMS (sha256sum's format) over all that the result holds, result.json, which comes last, included."""
    job = attempt.job
    sums = [*_sums(job, attempt.record), *((f"{ARTIFACTS}/{file.name}", file.sha256) for file in taken.files)]
    sums.append((job.result.name, hashlib.sha256(result).hexdigest()))
    (job.path / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sums))


def _sums(job: Job, record: Record) -> Iterator[tuple[str, str]]:
    for name in (record.image_name(), INSTALL, OUTPUT, CONSOLE, WISHES):
        path: Path = job.path / name
        if path.exists():
            with path.open("rb") as file:
                yield name, hashlib.file_digest(file, "sha256").hexdigest()
