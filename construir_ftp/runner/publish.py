"""What a finished job leaves in done/: all that its result.json says, and SHA256SUMS. Nothing here runs a machine."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from construir_ftp.jobs.result import (
    ARTIFACTS,
    CONSOLE,
    OUTPUT,
    SUMS,
    WISHES,
    BaseImageUsed,
    Measured,
    Result,
    Used,
    image_name,
    moment,
)
from construir_ftp.jobs.spool import Job, Record
from construir_ftp.machine.outcome import Outcome
from construir_ftp.machine.qemu import Shape
from construir_ftp.machine.vm import Ending
from construir_ftp.runner.artifacts import Artifacts


def describe(
    job: Job, record: Record, outcome: Outcome, run: tuple[Shape, Used, Ending] | None, taken: Artifacts
) -> Result:
    """All that result.json says; `run` is the machine it had, if any, with what was in it; `taken` is in artifacts/."""
    image = image_name(record)
    result = Result(
        id=job.id,
        name=record.name,
        contributor=record.contributor,
        status=outcome.status,
        reason=outcome.reason,
        exit_code=outcome.exit_code,
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
    return _with_run(result, *run) if run else result


def _with_run(result: Result, shape: Shape, used: Used, ending: Ending) -> Result:
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
        used=used,
        claimed=ending.claims,
        measured=Measured(
            **msgspec.structs.asdict(ending.usage),
            output_bytes=ending.output_bytes,
            qemu_status=ending.qemu_status,
        ),
    )


def _maybe(seconds: float | None) -> datetime | None:
    return None if seconds is None else moment(seconds)


def write_sums(job: Job, record: Record, taken: Artifacts, result: bytes) -> None:
    """Write SHA256SUMS (sha256sum's format) over all that the result holds, result.json, which comes last, included."""
    sums = [*_sums(job, record), *((f"{ARTIFACTS}/{file.name}", file.sha256) for file in taken.files)]
    sums.append((job.result.name, hashlib.sha256(result).hexdigest()))
    (job.path / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sums))


def _sums(job: Job, record: Record) -> Iterator[tuple[str, str]]:
    for name in (image_name(record), OUTPUT, CONSOLE, WISHES):
        path: Path = job.path / name
        if path.exists():
            with path.open("rb") as file:
                yield name, hashlib.file_digest(file, "sha256").hexdigest()
