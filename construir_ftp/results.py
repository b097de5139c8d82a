"""What a finished job leaves in done/: how it ended, in a status and in plain words, and files to prove it.

done/ID/ holds the image in the codec it came in, output.log, console.log, the construir.toml that the job was run by,
artifacts/, result.json and SHA256SUMS. The machine's claims and what was measured from outside are kept apart. Nothing
here runs a machine.
"""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from construir_ftp import __version__, artifacts, wishes
from construir_ftp.artifacts import Artifact, Artifacts
from construir_ftp.codec import CODECS
from construir_ftp.errors import ConstruirError
from construir_ftp.machine import guest
from construir_ftp.machine.qemu import Shape
from construir_ftp.machine.usage import Usage
from construir_ftp.machine.vm import BootPath, Ending
from construir_ftp.spool import Job, Ticket

OUTPUT, CONSOLE, SUMS = "output.log", "console.log", "SHA256SUMS"
WISHES = wishes.FILE

Status = Literal["success", "failed", "timeout", "idle-timeout", "no-result", "dependency-failed", "cancelled", "lost"]


class Verdict(msgspec.Struct, frozen=True):
    """How a job ended; `exit_code` is run.sh's, where it came to one."""

    status: Status
    reason: str
    exit_code: int | None = None


class OurFault(msgspec.Struct, frozen=True):
    """The job did not get its run, and not by its own doing."""

    reason: str


class Measured(Usage, frozen=True, kw_only=True):
    """What was seen from outside the machine."""

    output_bytes: int
    qemu_status: int | None


class BaseImageUsed(msgspec.Struct, frozen=True):
    """The base image the job ran on."""

    name: str
    digest: str


class LayerUsed(msgspec.Struct, frozen=True):
    """A layer that was laid over the root; `contents` as in its manifest."""

    name: str
    sha256: str
    contents: list[str]


class Used(msgspec.Struct, frozen=True):
    """What the job depended on: enough to have the same machine again. Layers lowest first, results by their ids."""

    layers: list[LayerUsed]
    results: list[str]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """result.json. Times are aware UTC; what never happened is null."""

    version: int = 1
    id: str
    name: str
    contributor: str
    status: Status
    reason: str
    exit_code: int | None
    image: str | None
    codec: str
    filesystem: str
    upload_sha256: str
    upload_bytes: int
    image_bytes: int
    received: datetime
    booted: datetime | None = None
    started: datetime | None = None
    first_output: datetime | None = None
    ended: datetime | None = None
    published: datetime
    accelerator: str | None = None
    boot_path: BootPath | None = None
    base_image: BaseImageUsed | None = None
    memory_bytes: int | None = None
    cpus: int | None = None
    attempt: int
    used: Used | None = None
    artifacts: tuple[Artifact, ...] = ()
    artifacts_left_out: tuple[str, ...] = ()
    claimed: guest.Report | None = None
    measured: Measured | None = None
    construir: str = __version__


def judge(ending: Ending) -> Verdict | OurFault:
    """What the machine's end means for the job. Only a job that was given its chance can fail."""
    report = ending.report
    if ending.killed is None and ending.qemu_status:
        return OurFault(_qemu_died(ending))
    if report.exit_code is not None or report.error is not None:
        return _judge_report(report, ending)
    if ending.killed == "timeout":
        return Verdict("timeout", "run.sh had not ended at the deadline; the machine was killed")
    if ending.killed == "idle-timeout":
        return Verdict("idle-timeout", "run.sh printed nothing for too long; the machine was killed")
    if not report.ready or ending.killed == "boot-timeout":
        how = "was killed at its boot deadline" if ending.killed else "ended by itself"
        return OurFault(f"the machine {how} before it came to run.sh; see console.log")
    if not report.started:
        return Verdict("no-result", "the machine ended while it mounted the job's image; see console.log")
    return Verdict("no-result", "the machine ended before run.sh did: it was switched off, restarted, or crashed")


def _qemu_died(ending: Ending) -> str:
    return f"QEMU ended with status {ending.qemu_status}: {ending.qemu_words or 'it said nothing'}"


def _judge_report(report: guest.Report, ending: Ending) -> Verdict:
    if report.error is not None:
        return Verdict("failed", f"run.sh was not run: {report.error}")
    code = report.exit_code
    said = f"run.sh ended with exit status {code}"
    if ending.killed == "power-off-timeout":
        said += ", but the machine then did not switch itself off and was killed"
    elif not report.clean:
        said += ", but the machine ended before the image was unmounted"
    if code == 0:
        return Verdict("success" if report.clean else "no-result", said, code)
    return Verdict("failed", said, code)


def image_name(ticket: Ticket) -> str:
    """What the result's image is called: <name>.img and the suffix of the codec it came in."""
    return f"{ticket.name}.img{CODECS[ticket.codec].suffix}"


def describe(
    job: Job, ticket: Ticket, verdict: Verdict, run: tuple[Shape, Used, Ending] | None, taken: Artifacts
) -> Result:
    """All that result.json says; `run` is the machine it had, if any, with what was in it; `taken` is in artifacts/."""
    image = image_name(ticket)
    result = Result(
        id=job.id,
        name=ticket.name,
        contributor=ticket.contributor,
        status=verdict.status,
        reason=verdict.reason,
        exit_code=verdict.exit_code,
        image=image if (job.path / image).exists() else None,
        codec=ticket.codec,
        filesystem=ticket.filesystem,
        upload_sha256=ticket.upload_sha256,
        upload_bytes=ticket.upload_bytes,
        image_bytes=job.disk.stat().st_size if job.disk.exists() else ticket.image_bytes,
        received=ticket.received,
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
        claimed=ending.report,
        measured=Measured(
            **msgspec.structs.asdict(ending.usage),
            output_bytes=ending.output_bytes,
            qemu_status=ending.qemu_status,
        ),
    )


def moment(seconds: float) -> datetime:
    """Seconds since the Epoch as an aware time."""
    return datetime.fromtimestamp(seconds, UTC)


def _maybe(seconds: float | None) -> datetime | None:
    return None if seconds is None else moment(seconds)


def read(job: Job) -> Result:
    """The result of a job that is done. Raises ConstruirError where there is none that can be read."""
    try:
        return msgspec.json.decode(job.result.read_bytes(), type=Result)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ConstruirError(f"job {job.id}: its result can't be read: {error}") from error


def encode(result: Result) -> bytes:
    """result.json's bytes."""
    return msgspec.json.format(msgspec.json.encode(result)) + b"\n"


def write_sums(job: Job, ticket: Ticket, taken: Artifacts, result: bytes) -> None:
    """Write SHA256SUMS (sha256sum's format) over all that the result holds, result.json, which comes last, included."""
    sums = [*_sums(job, ticket), *((f"{artifacts.PLACE}/{file.name}", file.sha256) for file in taken.files)]
    sums.append((job.result.name, hashlib.sha256(result).hexdigest()))
    (job.path / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sums))


def _sums(job: Job, ticket: Ticket) -> Iterator[tuple[str, str]]:
    for name in (image_name(ticket), OUTPUT, CONSOLE, WISHES):
        path: Path = job.path / name
        if path.exists():
            with path.open("rb") as file:
                yield name, hashlib.file_digest(file, "sha256").hexdigest()
