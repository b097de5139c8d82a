"""What a runner says of itself, to everyone: what is in its slots, and why no job is taken."""

from collections.abc import Iterable, Iterator

from construir_ftp.jobs.result import moment
from construir_ftp.jobs.status import RunnerReport, RunningJob
from construir_ftp.machine.template import Template
from construir_ftp.runner.installs import Installs
from construir_ftp.runner.pause import LACKS_ROOM, Pause
from construir_ftp.runner.resources import Resources
from construir_ftp.runner.slot import Slot


def of(
    slots: list[Slot], installs: Installs, latest: Resources | None, pause: Pause, stands_still: str, *, waits: bool
) -> RunnerReport:
    """`stands_still` is why machines do, `waits` whether a job does, for room; `latest` is what the last one got."""
    is_paused = pause.left_s > 0
    return RunnerReport(
        slots=len(slots),
        busy=(*_busy(slots, stands_still), *_busy(installs.places, stands_still, installs=True), *installs.report()),
        installs=len(installs.places),
        installs_free=installs.free_place() is not None,
        pause=pause.why if is_paused else LACKS_ROOM if waits else "",
        pause_detail=pause.detail if is_paused else "",
        paused=stands_still,
        accelerator=latest.accelerator.accelerator if latest else None,
        warm=latest is not None and isinstance(latest.source(), Template),
    )


def _busy(slots: Iterable[Slot], stands_still: str, *, installs: bool = False) -> Iterator[RunningJob]:
    for slot in slots:
        job, since, doing, progress = slot.job, slot.since, slot.doing, slot.progress
        if job is not None:
            how_far = progress if doing else ""
            yield RunningJob(job.id, moment(since), doing or stands_still, progress=how_far, installs=installs)
