"""What the appliance is doing, and why a job waits: put together from the spool and what the runner says of itself.

    runner.json    in the spool: slots, what is in them, why no job is taken. Replaced in one step at every change, and
                   old news while nobody holds the spool's lock. Nothing depends on it but what people are told.

All of it may be told to anyone, but Report.pause_detail: nothing else names a path of the host, or a contributor.
"""

import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal

import msgspec

from construir_ftp import files
from construir_ftp.errors import RefusedError, one_line
from construir_ftp.jobs import names
from construir_ftp.jobs.disk_space import Room
from construir_ftp.jobs.reply import Reply
from construir_ftp.jobs.spool import Job, Spool

# What is listed of a long queue; how long it is, is told anyway.
_MOST_LISTED = 1000


class Slot(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job that has a machine, or is about to have one, and since when, if that is known.

    `doing` is what keeps it from its machine, empty if nothing does.
    """

    job: str
    since: datetime | None
    doing: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """runner.json. `pause` is why no job is taken at the moment, empty if jobs are taken; `pause_detail` is the same
    in words for the operator.
    """

    version: int = 1
    slots: int
    busy: tuple[Slot, ...] = ()
    pause: str = ""
    pause_detail: str = ""
    accelerator: str | None = None
    warm: bool = False


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """status.json. Sizes in bytes; `why` says why jobs wait, and is empty if none has to."""

    version: int = 1
    time: datetime
    accepts_uploads: bool
    free_bytes: int
    kept_free_bytes: int
    slots: int
    accelerator: str | None
    warm: bool
    why: str
    running: list[Slot]
    waiting: int
    queue: list[str]


JobState = Literal["waiting", "running", "done"]


class JobStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is told of one job: its place while it waits, since when it runs, how it ended.

    `why` is what keeps it from running, or, while it is in a slot, from its machine.
    """

    id: str
    state: JobState
    place: int = 0
    why: str = ""
    cancelled: bool = False
    since: datetime | None = None
    attempt: int = 0
    status: str = ""
    reason: str = ""
    exit_code: int | None = None


class _Ended(msgspec.Struct):
    """The part of result.json that is needed here."""

    status: str
    reason: str
    exit_code: int | None


def tell(spool: Spool, report: Report) -> None:
    """Replace runner.json. For the lock's holder; what a full disk costs is that people are told old news."""
    with suppress(OSError):
        files.replace(spool.path / "runner.json", msgspec.json.encode(report))


def runner(spool: Spool) -> Report | None:
    """What the runner says of itself; None where there is none."""
    if not spool.is_locked():
        return None
    try:
        return msgspec.json.decode((spool.path / "runner.json").read_bytes(), type=Report)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        return Report(slots=0)


def summary(spool: Spool, min_free_bytes: int) -> Summary:
    """All of it, as of now."""
    there = runner(spool)
    report = there or Report(slots=0)
    line = list(spool.line())
    busy = {slot.job: slot for slot in report.busy}
    running = [busy.get(job, Slot(job, None)) for job in spool.names("running")]
    free_bytes = files.free_bytes(spool.path)
    return Summary(
        time=datetime.now(UTC),
        accepts_uploads=Room(spool, min_free_bytes).for_uploads() >= 0,
        free_bytes=free_bytes,
        kept_free_bytes=int(min_free_bytes),
        slots=report.slots,
        accelerator=report.accelerator,
        warm=report.warm,
        why=_why(there, len(running)) if line else "",
        running=running,
        waiting=len(line),
        queue=line[:_MOST_LISTED],
    )


def job(spool: Spool, job_id: str) -> JobStatus | None:
    """Where a job is, and why; None if there is no such job, or no longer."""
    try:
        names.check_name(job_id)
    except RefusedError:
        return None
    # It may move on while it is looked for; back to queue/ it goes at most once, when the runner stops.
    for look in (_waiting, _running, _done, _waiting, _running):
        if (found := look(spool, job_id)) is not None:
            return found
    return None


def place(spool: Spool, job_id: str) -> int:
    """A waiting job's place in the queue, the next one being 1; 0 if it doesn't wait."""
    return next((number for number, waiting in enumerate(spool.line(), 1) if waiting == job_id), 0)


def _waiting(spool: Spool, job_id: str) -> JobStatus | None:
    number = place(spool, job_id)
    if not number:
        return None
    cancelled = Job(spool.state("queue") / job_id).is_cancelled()
    why = _why_not_ready(spool, job_id) or _why(runner(spool), len(spool.names("running")))
    return JobStatus(id=job_id, state="waiting", place=number, why=why, cancelled=cancelled)


def _running(spool: Spool, job_id: str) -> JobStatus | None:
    found = Job(spool.state("running") / job_id)
    if not found.path.is_dir():
        return None
    report = runner(spool)
    slots = {slot.job: slot for slot in report.busy} if report else {}
    slot = slots.get(job_id, Slot(job_id, None))
    return JobStatus(
        id=job_id,
        state="running",
        why=slot.doing,
        cancelled=found.is_cancelled(),
        since=slot.since,
        attempt=found.attempts(),
    )


def _done(spool: Spool, job_id: str) -> JobStatus | None:
    try:
        ended = msgspec.json.decode(Job(spool.state("done") / job_id).result.read_bytes(), type=_Ended)
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
        return None
    return JobStatus(id=job_id, state="done", status=ended.status, reason=ended.reason, exit_code=ended.exit_code)


def _why_not_ready(spool: Spool, job_id: str) -> str:
    """Which job's result it waits for; empty if it waits for none."""
    record = spool.records("queue").get(job_id)
    unfinished = {*spool.names("queue"), *spool.names("running")}
    awaited = next((name for name in record.after if name in unfinished), "") if record else ""
    return f"it waits for the result of {awaited}" if awaited else ""


def _why(report: Report | None, running: int) -> str:
    """Why a job at the front of the queue would have to wait."""
    if report is None:
        return "no runner is there to run jobs"
    if report.pause:
        return f"no job is taken at the moment: {report.pause}"
    if running >= report.slots:
        return f"every machine is busy ({running} of {report.slots})"
    return "it is about to be taken"


# -- SITE STATUS -------------------------------------------------------------------------------------------------

_WAITING = re.compile(r"(cancelled, )?waiting, number ([0-9]{1,9}) in the queue; (.*)")


def as_reply(told: JobStatus | None) -> Reply:
    """What SITE STATUS answers; `read_reply` understands it."""
    if told is None:
        return Reply(550, "There is no such job.")
    if told.state == "waiting":
        cancelled = "cancelled, " if told.cancelled else ""
        return Reply(211, f"{told.id} is {cancelled}waiting, number {told.place} in the queue; {told.why}")
    if told.state == "running":
        why = f"; {told.why}" if told.why else ""
        doing = "being cancelled" if told.cancelled else "running"
        return Reply(211, f"{told.id} is {doing}{since(told.since)}{why}; see /running/{told.id}/")
    return Reply(211, f"{told.id} is done: {one_line(f'{told.status}, {told.reason}')}; see /done/{told.id}/")


def read_reply(text: str) -> JobStatus | None:
    """What `as_reply` has said of a job, as far as it says it for certain; None if `text` says something else."""
    parts = text.split(" ", 3)
    if len(parts) < 4 or (parts[0], parts[2]) != ("211", "is"):
        return None
    job_id, words = parts[1], parts[3]
    if waiting := _WAITING.match(words):
        cancelled, place, why = waiting.groups()
        return JobStatus(id=job_id, state="waiting", cancelled=bool(cancelled), place=int(place), why=why)
    if words.startswith("done"):
        return JobStatus(id=job_id, state="done")
    if words.startswith(("running", "being cancelled")):
        return JobStatus(id=job_id, state="running")
    return None


def since(moment: datetime | None) -> str:
    """Since when, in words that go on a sentence; empty if nobody knows."""
    return f" since {moment:%Y-%m-%d %H:%M:%S} UTC" if moment else ""
