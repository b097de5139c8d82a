"""What is told of the appliance and its jobs: status.json, runner.json, and the reply to SITE STATUS.

All of it may be told to anyone, but RunnerReport.pause_detail: nothing else names a path of the host, or a contributor.
What is true is for inquiry to find out.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

import msgspec

from construir_ftp.errors import one_line
from construir_ftp.jobs.reply import Reply


class RunningJob(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job that has a machine, or is about to have one, and since when, if that is known.

    `doing` is what keeps it from its machine, or its machine from running; empty if nothing does. `progress` is how far
    that is, where it is known. `node` is where it is; empty where there is one node only. `installs` is whether it has
    no slot yet: its packages are installed, or are there, and it waits for one.
    """

    job: str
    since: datetime | None
    doing: str = ""
    node: str = ""
    progress: str = ""
    installs: bool = False

    def words(self) -> str:
        """What it does, and how far that is."""
        return ": ".join(filter(None, [self.doing, self.progress]))


class RunnerReport(msgspec.Struct, frozen=True, kw_only=True):
    """runner.json. `pause` is why no job is taken at the moment, empty if jobs are taken; `pause_detail` is the same
    in words for the operator. `paused` is why machines stand still, empty if they run. `installs` is how many places
    there are where packages are installed, `installs_free` whether another job can have one.
    """

    version: int = 1
    slots: int
    busy: tuple[RunningJob, ...] = ()
    pause: str = ""
    pause_detail: str = ""
    paused: str = ""
    accelerator: str | None = None
    warm: bool = False
    installs: int = 0
    installs_free: bool = True


def in_slots(jobs: Iterable[RunningJob]) -> int:
    """How many of these have a slot."""
    return sum(not job.installs for job in jobs)


def together(reports: Mapping[str, RunnerReport]) -> RunnerReport:
    """What several nodes say, as if they were one runner: it takes no job only if none of them does."""
    if len(reports) == 1:
        return next(iter(reports.values()))
    busy = [msgspec.structs.replace(job, node=name) for name, report in reports.items() for job in report.busy]
    serving = [report for report in reports.values() if not (report.pause or report.paused)]
    said = next(iter(serving or reports.values()))
    return msgspec.structs.replace(
        said,
        slots=sum(report.slots for report in reports.values()),
        busy=tuple(busy),
        pause_detail="; ".join(f"{name}: {report.pause_detail}" for name, report in reports.items() if report.pause),
        warm=any(report.warm for report in reports.values()),
        installs=sum(report.installs for report in reports.values()),
        installs_free=any(report.installs_free for report in serving or reports.values()),
    )


class NodeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A node that lives; `why` is why it takes no job, empty if it takes them."""

    name: str
    slots: int
    busy: int
    why: str = ""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """status.json. Sizes in bytes; `why` says why jobs wait, and is empty if none has to; `why_no_uploads` is empty if
    uploads are accepted, `paused` if machines run. `nodes` are those that live, where there is more than the
    appliance's own.
    """

    version: int = 1
    time: datetime | None = None
    accepts_uploads: bool = True
    why_no_uploads: str = ""
    free_bytes: int = 0
    kept_free_bytes: int = 0
    slots: int = 0
    accelerator: str | None = None
    warm: bool = False
    why: str = ""
    paused: str = ""
    running: list[RunningJob] = []
    waiting: int = 0
    queue: list[str] = []
    nodes: list[NodeSummary] = []


JobState = Literal["waiting", "running", "done"]


class JobStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is told of one job: its place while it waits, since when it runs, how it ended.

    `why` is what keeps it from running, or, while it is in a slot, from its machine, or that from running; `progress`
    is how far that is, where it is known.
    """

    id: str
    state: JobState
    place: int = 0
    why: str = ""
    progress: str = ""
    cancelled: bool = False
    since: datetime | None = None
    attempt: int = 0
    status: str = ""
    reason: str = ""
    exit_code: int | None = None


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
        why = "; " + ": ".join(filter(None, [told.why, told.progress])) if told.why else ""
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
