"""What is going on in a spool, and why a job waits: put together from the spool and what the runner says of itself.

runner.json    of each node: slots, what is in them, why no job is taken. Replaced in one step at every change, and
               old news while nobody holds the spool's lock. Nothing depends on it but what people are told.
"""

import logging
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from construir_ftp import files
from construir_ftp.errors import ConstruirError, RefusedError, one_line
from construir_ftp.jobs import judging, names, nodes, pilots, places, request, service, status
from construir_ftp.jobs.disk_space import Room
from construir_ftp.jobs.job import Record, installs, read_result
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.jobs.status import JobStatus, NodeSummary, RunnerReport, RunningJob, Summary

log = logging.getLogger("construir.jobs")

# What is listed of a long queue; how long it is, is told anyway.
_MOST_LISTED = 1000
# Of a node that lives, and has not said yet how many machines it has.
STARTING = "it is only starting"
_IS_NEXT = "it is about to be taken"


def tell(spool: Spool, report: RunnerReport, node: str = places.LOCAL) -> None:
    """Replace the runner.json of a node; what a full disk costs is that people are told old news."""
    with suppress(OSError):
        files.replace(nodes.place(spool.path, node) / "runner.json", msgspec.json.encode(report))


def runner(spool: Spool) -> RunnerReport | None:
    """What the runners of all nodes that live say of themselves; None where there is none."""
    living = nodes.living(spool.path)
    return status.together({name: of_node(spool, name) for name in living}) if living else None


def of_node(spool: Spool, name: str) -> RunnerReport:
    """What one of them says."""
    return _said(spool, name) or RunnerReport(slots=0)


def _said(spool: Spool, name: str) -> RunnerReport | None:
    return nodes.read(spool.path / nodes.DIRECTORY / name / "runner.json", RunnerReport)


def summary(spool: Spool, min_free_bytes: int) -> Summary:
    """All of it, as of now."""
    there = runner(spool)
    report = there or RunnerReport(slots=0)
    line = list(spool.line())
    busy = {slot.job: slot for slot in report.busy}
    running = [busy.get(job, RunningJob(job, None)) for job in spool.names("running")]
    free_bytes = files.free_bytes(spool.path)
    why_no_uploads = _why_no_uploads(spool, min_free_bytes)
    several = _nodes(spool)
    return Summary(
        time=datetime.now(UTC),
        accepts_uploads=not why_no_uploads,
        why_no_uploads=why_no_uploads,
        free_bytes=free_bytes,
        kept_free_bytes=int(min_free_bytes),
        slots=report.slots,
        accelerator=report.accelerator,
        warm=report.warm,
        why=_why(spool, there, several, spool.records("queue").get(line[0])) if line else "",
        paused=report.paused,
        running=running,
        waiting=len(line),
        queue=line[:_MOST_LISTED],
        nodes=several,
    )


def _nodes(spool: Spool) -> list[NodeSummary]:
    living = nodes.living(spool.path)
    return [node_summary(spool, name) for name in living] if len(living) > 1 else []


def node_summary(spool: Spool, name: str) -> NodeSummary:
    """What a node that lives does, and why it takes no job."""
    said, drained = _said(spool, name), nodes.why_drained(spool.path, name)
    report = said or RunnerReport(slots=0, pause=STARTING)
    why = f"drained: {drained}" if drained else report.paused or report.pause
    return NodeSummary(name=name, slots=report.slots, busy=status.in_slots(report.busy), why=why)


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


def unfinished(spool: Spool, job_id: str) -> JobStatus | None:
    """Where a job is that has no result yet; its place in the queue is not looked for, since that reads all of it."""
    try:
        names.check_name(job_id)
    except RefusedError:
        return None
    if spool.find_job("queue", job_id) is not None:
        return JobStatus(id=job_id, state="waiting")
    return _running(spool, job_id)


def is_done(spool: Spool, job_id: str) -> bool:
    """Whether a job has ended, and its result is there."""
    try:
        names.check_name(job_id)
    except RefusedError:
        return False
    return files.is_there(spool.state("done") / job_id)


def place(spool: Spool, job_id: str) -> int:
    """A waiting job's place in the queue, the next one being 1; 0 if it doesn't wait."""
    return next((number for number, waiting in enumerate(spool.line(), 1) if waiting == job_id), 0)


def place_if_known(spool: Spool, job_id: str) -> int:
    """The same; -1 where it can't be found out, which nobody shall be refused for."""
    try:
        return place(spool, job_id)
    except OSError:
        log.exception("job %s: its place in the queue can't be found out", job_id)
        return -1


def _waiting(spool: Spool, job_id: str) -> JobStatus | None:
    number = place(spool, job_id)
    if not number:
        return None
    cancelled = Job(spool.state("queue") / job_id).is_cancelled()
    record = spool.records("queue").get(job_id)
    why = _why_not_ready(spool, record) or _why(spool, runner(spool), _nodes(spool), record)
    return JobStatus(id=job_id, state="waiting", place=number, why=why, cancelled=cancelled)


def _running(spool: Spool, job_id: str) -> JobStatus | None:
    found = spool.find_job("running", job_id)
    if found is None:
        return None
    report = runner(spool)
    slots = {slot.job: slot for slot in report.busy} if report else {}
    slot = slots.get(job_id, RunningJob(job_id, None))
    return JobStatus(
        id=job_id,
        state="running",
        why=slot.doing,
        progress=slot.progress,
        cancelled=found.is_cancelled(),
        since=slot.since,
        attempt=found.attempts(),
    )


def _done(spool: Spool, job_id: str) -> JobStatus | None:
    try:
        ended = read_result(Job(spool.state("done") / job_id))
    except ConstruirError:
        return None
    return JobStatus(id=job_id, state="done", status=ended.status, reason=ended.reason, exit_code=ended.exit_code)


def _why_not_ready(spool: Spool, record: Record | None) -> str:
    """What it waits for that is its own business: a job's result, or a node; empty if it waits for none."""
    unfinished = {*spool.names("queue"), *spool.names("running")}
    awaited = next((name for name in record.after if name in unfinished), "") if record else ""
    if awaited:
        return f"it waits for the result of {awaited}"
    return "no node that takes jobs has what it asks for" if record and _fits_nowhere(spool.path, record) else ""


def _fits_nowhere(spool: Path, record: Record) -> bool:
    """Whether a job waits for a node to come back, or to be resumed."""
    if len(nodes.names(spool)) < 2:
        return False
    try:
        wanted = request.read(record.construir_toml)
    except RefusedError:  # of an older version: it is told so when it runs
        return False
    there = [name for name in nodes.living(spool) if not nodes.why_drained(spool, name)]
    return bool(there) and not any(nodes.suits(spool, name, wanted, record.image_bytes) for name in there)


def _why_no_uploads(spool: Spool, min_free_bytes: int) -> str:
    """Why an upload would be refused now, whatever it is; empty if it would not."""
    if refusal := service.read(spool.path).refusal():
        return refusal
    if judging.read(spool.path).detail:
        return judging.NO_JUDGE
    return "" if Room(spool, min_free_bytes).for_uploads() >= 0 else "there is not enough room on the disk"


def _why(spool: Spool, report: RunnerReport | None, several: list[NodeSummary], record: Record | None) -> str:
    """Why a job at the front of the queue would have to wait, and how nodes are that may come."""
    coming = pilots.in_words(pilots.read(spool.path))
    return "; ".join(filter(None, [_why_not_here(spool, report, several, record), coming]))


def _why_not_here(spool: Spool, report: RunnerReport | None, several: list[NodeSummary], record: Record | None) -> str:
    if report is None:
        return "no runner is there to run jobs"
    if report.paused:
        return f"no job is run at the moment: {report.paused}"
    decided = service.read(spool.path)
    if not decided.takes_jobs:
        return f"no job is taken at the moment: {decided.why}"
    drained = [nodes.why_drained(spool.path, name) for name in nodes.living(spool.path)]
    if all(drained):
        return f"no job is taken at the moment: every node is drained: {one_line(drained[0])}"
    if report.pause:
        return f"no job is taken at the moment: {report.pause}"
    if installs(record):
        return _why_not_installed(report)
    takers = [node for node in several if not node.why]
    busy = sum(node.busy for node in takers) if takers else _in_slots(spool, report)
    slots = sum(node.slots for node in takers) if takers else report.slots
    return f"every machine is busy ({busy} of {slots})" if busy >= slots else _IS_NEXT


def _why_not_installed(report: RunnerReport) -> str:
    if report.installs_free:
        return _IS_NEXT
    if report.installs == 1:
        return "it waits for the place where packages are installed, which another job has"
    return f"it waits for one of the {report.installs} places where packages are installed; other jobs have them"


def _in_slots(spool: Spool, report: RunnerReport) -> int:
    installing = {job.job for job in report.busy if job.installs}
    return len(set(spool.names("running")) - installing)
