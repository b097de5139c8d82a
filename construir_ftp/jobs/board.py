"""The jobs of an appliance as lines for a screen: what runs, what waits, what is done. Whoever looks makes one."""

from datetime import datetime
from typing import Literal

import msgspec

from construir_ftp.jobs.result import Result
from construir_ftp.jobs.status import RunningJob, Summary


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A job. `since` is when it began to run, or ended; `took_s` how long it ran; `place` is that in the queue."""

    id: str
    state: Literal["waiting", "running", "done"]
    contributor: str = ""
    place: int = 0
    since: datetime | None = None
    took_s: float | None = None
    status: str = ""
    why: str = ""


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, at a moment. `lines` are those that run, those that wait in their order, those done, newest first."""

    summary: Summary
    lines: list[Line]


def of_result(job_id: str, result: Result) -> Line:
    """A job that is done."""
    took = result.ended - result.started if result.started and result.ended else None
    code = f", {result.exit_code}" if result.status == "failed" and result.exit_code is not None else ""
    return Line(
        id=job_id,
        state="done",
        contributor=result.contributor,
        since=result.published,
        took_s=took.total_seconds() if took else None,
        status=f"{result.status}{code}",
        why=result.reason,
    )


def _why(slot: RunningJob) -> str:
    return "; ".join(filter(None, (slot.node and f"on {slot.node}", slot.words())))


def live(summary: Summary, contributors: dict[str, str]) -> list[Line]:
    """The jobs that run and wait; who sent them, as far as that is known."""
    running = [
        Line(id=slot.job, state="running", contributor=contributors.get(slot.job, ""), since=slot.since, why=_why(slot))
        for slot in summary.running
    ]
    return running + [
        Line(id=job_id, state="waiting", contributor=contributors.get(job_id, ""), place=place)
        for place, job_id in enumerate(summary.queue, 1)
    ]
