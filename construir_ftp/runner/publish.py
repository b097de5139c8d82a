"""What a finished job leaves in done/: all that its result.json says, its provenance, SHA256SUMS, and the signature.

Each is made of what was there before: the logs, the image and the artifacts, result.json, the provenance, SHA256SUMS
over all of these, and its signature. Nothing here runs a machine.
"""

import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from construir_ftp.errors import one_line
from construir_ftp.image import past
from construir_ftp.jobs import sums
from construir_ftp.jobs.result import (
    ARTIFACTS,
    CONSOLE,
    INSTALL,
    OUTPUT,
    PROVENANCE,
    RECORD,
    RESULT,
    SIGNATURE,
    SUMS,
    UPLOADED,
    WISHES,
    BaseImageUsed,
    Measured,
    Result,
    encode,
    moment,
)
from construir_ftp.jobs.spool import Job, Record, Spool
from construir_ftp.machine.ending import Ending
from construir_ftp.machine.outcome import Outcome
from construir_ftp.runner import environment
from construir_ftp.runner.allocation import Allocation
from construir_ftp.runner.artifacts import Artifacts
from construir_ftp.runner.attempt import Attempt, Published
from construir_ftp.trust.seal import Seal

_NO_ARTIFACTS = Artifacts()


def publish(
    spool: Spool, seal: Seal | None, attempt: Attempt, ended: Outcome, taken: Artifacts = _NO_ARTIFACTS
) -> Published:
    """running -> done: write all that is said of a result, sign it, and have the job where anyone sees it.

    `taken` is in artifacts/ already. Without a seal nothing is signed. Raises OSError and SigningError, with the job
    still running.
    """
    result = describe(attempt, ended, taken)
    encoded = encode(result)
    _sign(seal, attempt, result, _sums(attempt, taken, encoded))
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
        source_signers=record.source_signers,
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
        environment=environment.of(shape, result.codec),
        claimed=ending.claims,
        measured=Measured(
            **msgspec.structs.asdict(ending.usage),
            output_bytes=ending.output_bytes,
            qemu_status=ending.status,
            paused_seconds=ending.paused_s,
        ),
    )


def _maybe(seconds: float | None) -> datetime | None:
    return None if seconds is None else moment(seconds)


def _sums(attempt: Attempt, taken: Artifacts, result: bytes) -> dict[str, str]:
    """The digests of all that the result holds, result.json, which comes last, included."""
    own = dict(_digests(attempt.job, attempt.record))
    artifacts = {f"{ARTIFACTS}/{file.name}": file.sha256 for file in taken.files}
    return {**own, **artifacts, RESULT: hashlib.sha256(result).hexdigest()}


def keep_upload(attempt: Attempt, most_bytes: int) -> None:
    """Have the upload in the result, if it is no larger than that. Raises OSError."""
    record, upload = attempt.record, attempt.job.upload
    kept = _kept_upload(attempt.job, record)
    if record.upload_bytes <= most_bytes and not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        os.link(upload, kept)


def _kept_upload(job: Job, record: Record) -> Path:
    return job.path / UPLOADED / record.image_name()


def _digests(job: Job, record: Record) -> Iterator[tuple[str, str]]:
    if _kept_upload(job, record).exists():
        yield f"{UPLOADED}/{record.image_name()}", record.upload_sha256
    for name in (record.image_name(), INSTALL, OUTPUT, CONSOLE, WISHES, RECORD):
        path: Path = job.path / name
        if path.exists():
            with path.open("rb") as file:
                yield name, hashlib.file_digest(file, "sha256").hexdigest()


def _made_of(attempt: Attempt) -> dict[str, Any]:
    """What the base image can be built again by, where there was one."""
    if attempt.allocation is None:
        return {}
    told: dict[str, Any] = msgspec.to_builtins(past.of(attempt.allocation.shape.base.manifest))
    return told


def _sign(seal: Seal | None, attempt: Attempt, result: Result, known: dict[str, str]) -> None:
    """Write SHA256SUMS, and with a seal the provenance, which is in it, and the signature of it."""
    place = attempt.job.path
    if seal is None:
        (place / SUMS).write_bytes(sums.render(known))
        return
    wishes = place / WISHES
    asked = wishes.read_text() if wishes.exists() else ""
    told = seal.provenance(result, known, asked, _made_of(attempt))
    (place / PROVENANCE).write_bytes(told)
    content = sums.render({**known, PROVENANCE: hashlib.sha256(told).hexdigest()})
    (place / SUMS).write_bytes(content)
    (place / SIGNATURE).write_bytes(seal.signature(content))
