"""What to delete, and the `schedule` that deletes it.

Deletes results, uploads nobody finished, and what an interrupted deletion left; never a job that waits or
runs, nor a result that one of them needs, and never but through the spool. A result goes, oldest first, for one of
four reasons:

    older than max_age; beyond the newest max_results; all together above max_total; min_free not kept.

The newest `keep_newest` results of each contributor go last: never for their age (nobody comes back from a
holiday to an empty directory), and for the other reasons only when no other result is left. If even the last
of them would not restore min_free, something else fills the disk, and they stay.

Ages are believed only as far as the clock is (see Clock); the other three reasons need no clock. Nothing is
persisted: the spool and the two clocks of the kernel say all that is needed.
"""

import logging
import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
import schedule

from construir_ftp import files
from construir_ftp.appliance.clock import Clock
from construir_ftp.config import JanitorSection, LayersSection
from construir_ftp.errors import ConstruirError
from construir_ftp.jobs import references
from construir_ftp.jobs.job import read_result
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.layers import gc
from construir_ftp.units import Size

log = logging.getLogger(__name__)

Removal = tuple[Job, str]

# Ordinary work deletes a result within minutes of its day. One overdue by this much was left by a machine that
# was off, or by limits that were tightened, or has been made old by a clock that jumped.
_OVERDUE_S = 86400.0


class Facts(msgspec.Struct, frozen=True, gc=False):
    """What is remembered of a result. `contributor` is empty where nothing says who it was."""

    contributor: str
    published_s: float  # since the epoch
    size_bytes: int


class Shelved(NamedTuple):
    """A result and its facts."""

    job: Job
    facts: Facts


class Shelf:
    """The results in done/, each read and measured once: results never change."""

    def __init__(self) -> None:
        self._facts: dict[str, Facts] = {}

    def results(self, spool: Spool) -> list[Shelved]:
        """Every result, oldest first."""
        known, self._facts = self._facts, {}
        results = []
        for job in spool.jobs("done"):
            try:
                facts = known.get(job.id) or _facts(job)
            except FileNotFoundError:  # deleted while we looked
                continue
            self._facts[job.id] = facts
            results.append(Shelved(job, facts))
        return sorted(results, key=lambda result: (result.facts.published_s, result.job.id))


def _facts(job: Job) -> Facts:
    contributor, published_s = _origin(job)
    try:
        size_bytes = files.tree_bytes(job.path)
    except OSError:  # one that can't be measured must not keep the others from being pruned
        size_bytes = 0
    return Facts(sys.intern(contributor), published_s, size_bytes)


def _origin(job: Job) -> tuple[str, float]:
    """Contributor, and time of publication in seconds since the epoch, by the best source that can be read."""
    with suppress(ConstruirError):  # damaged, yet it must remain possible to prune it
        result = read_result(job)
        if result.published is not None:
            return result.contributor, result.published.timestamp()
    try:
        record = job.record()
        received = record.received if record.received.tzinfo else record.received.replace(tzinfo=UTC)
        return record.contributor, received.timestamp()
    except ConstruirError:
        return "", job.path.lstat().st_mtime


def plan(spool: Spool, limits: JanitorSection, min_free: Size, now: datetime) -> list[Removal]:
    """What would be deleted at `now` (aware), in this order, and why; nothing is touched.

    A single look can't see a jump of the clock. If most results are overdue by more than a day, none is
    deleted for its age: only a Janitor that has watched the clock does that.
    """
    results = Shelf().results(spool)
    believed = _plausible(results, limits, now)
    if not believed:
        log.warning(
            "most results are more than a day beyond max_age: the clock may be wrong, so none is deleted for its age;"
            " a janitor that runs for six hours without a jump of the clock will do it"
        )
    return _decide(spool, results, limits, min_free, now, believed=believed)


def prune(spool: Spool, limits: JanitorSection, min_free: Size, now: datetime, dry_run: bool = False) -> list[Removal]:
    """Delete what plan() says, and empty trash/; return what was deleted, or with `dry_run` what would be.

    What can't be deleted is logged, and left out of the list; it stops nothing else.
    """
    if dry_run:
        return plan(spool, limits, min_free, now)
    spool.sweep_trash()
    return _delete(spool, plan(spool, limits, min_free, now))


def _plausible(results: list[Shelved], limits: JanitorSection, now: datetime) -> bool:
    """Whether at most half of the results are overdue: more means a long absence, or a clock that jumped.

    The age of the newest result alone would not do: the first job finished after a jump makes it look right.
    """
    horizon_s = now.timestamp() - limits.max_age - _OVERDUE_S
    return 2 * sum(result.facts.published_s < horizon_s for result in results) <= len(results)


def _decide(
    spool: Spool, results: list[Shelved], limits: JanitorSection, min_free: Size, now: datetime, *, believed: bool
) -> list[Removal]:
    abandoned = _abandoned(spool, limits, now) if believed else []
    needed = references.results(spool)
    spare, last = _by_turn([result for result in results if result.job.id not in needed], limits.keep_newest)
    horizon_s = now.timestamp() - limits.max_age
    old = [result for result in spare if believed and result.facts.published_s < horizon_s]
    spare = spare[len(old) :]  # oldest first, so the old ones are its head
    freed_bytes = sum(size for _, size in abandoned) + sum(result.facts.size_bytes for result in old)
    shortage_bytes = min_free - files.free_bytes(spool.path) - freed_bytes
    return [
        *((job, f"upload untouched for more than {_hours(limits.incoming_age)}") for job, _ in abandoned),
        *((result.job, f"older than {_hours(limits.max_age)}") for result in old),
        *_surplus(spare, last, limits, min_free, shortage_bytes),
    ]


def _by_turn(results: list[Shelved], keep_newest: int) -> tuple[list[Shelved], list[Shelved]]:
    """Results that can be spared, and those that go last: the newest of each contributor; both oldest first."""
    spare: list[Shelved] = []
    last: list[Shelved] = []
    seen: Counter[str] = Counter()
    for result in reversed(results):
        seen[result.facts.contributor] += 1
        protected = result.facts.contributor and seen[result.facts.contributor] <= keep_newest
        (last if protected else spare).append(result)
    return spare[::-1], last[::-1]


def _surplus(
    spare: list[Shelved], last: list[Shelved], limits: JanitorSection, min_free: Size, shortage_bytes: int
) -> Iterator[Removal]:
    order = spare + last
    count, total_bytes = len(order), sum(result.facts.size_bytes for result in order)
    for position, result in enumerate(order):
        if count > limits.max_results:
            reason = f"more than {limits.max_results} results"
        elif total_bytes > limits.max_total:
            reason = f"results take more than {_mebibytes(limits.max_total)}"
        elif shortage_bytes > 0 and (position < len(spare) or shortage_bytes <= total_bytes):
            reason = f"less than {_mebibytes(min_free)} free"
        else:
            return
        yield result.job, reason
        count -= 1
        total_bytes -= result.facts.size_bytes
        shortage_bytes -= result.facts.size_bytes


def _abandoned(spool: Spool, limits: JanitorSection, now: datetime) -> list[tuple[Job, int]]:
    """Entries of incoming/ in which nothing was modified for incoming_age, with the bytes they take."""
    abandoned = []
    for job in spool.jobs("incoming"):
        try:
            # The directory counts too: a client may have set its file's time (MFMT), but not the directory's.
            newest_s = max(entry.lstat().st_mtime for entry in [job.path, *job.path.rglob("*")])
            if newest_s < now.timestamp() - limits.incoming_age:
                abandoned.append((job, files.tree_bytes(job.path)))
        except OSError:  # admitted or refused while we looked; or unreadable, and none of the others' business
            continue
    return abandoned


def _delete(spool: Spool, removals: list[Removal]) -> list[Removal]:
    deleted = []
    for job, reason in removals:
        try:
            spool.delete(job)
        except OSError as error:
            log.error("%s can't be deleted: %s; see to its permissions", job.id, error)  # noqa: TRY400 - no bug of ours
        else:
            log.info("deleted %s: %s", job.id, reason)
            deleted.append((job, reason))
    return deleted


def _hours(seconds: float) -> str:
    return f"{seconds / 86400:g} days" if seconds >= 2 * 86400 else f"{seconds / 3600:g} hours"


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:g} MiB"


class Janitor:
    """Prunes every `limits.every`, remembering results and the clock from one time to the next.

    `chore` is done each time, after that; it must not take long.
    """

    def __init__(
        self,
        spool: Spool,
        limits: JanitorSection,
        min_free: Size,
        layers: LayersSection | None = None,
        chore: Callable[[], None] = lambda: None,
    ) -> None:
        self._spool = spool
        self._chore = chore
        self._limits = limits
        self._layers = layers or LayersSection()
        self._min_free = min_free
        self._shelf = Shelf()
        self._clock = Clock()
        self._believed = True
        self.scheduler = schedule.Scheduler()
        self.scheduler.every(limits.every).seconds.do(self._tidy_or_log)  # type: ignore[arg-type] # floats work

    def tidy(self, now: datetime, uptime_s: float) -> list[Removal]:
        """Prune once, ages believed as far as the clock is; `uptime_s` is CLOCK_BOOTTIME. Returns what was deleted."""
        self._spool.sweep_trash()
        results = self._shelf.results(self._spool)
        believed = self._clock.look(now, uptime_s, implausible=not _plausible(results, self._limits, now))
        if believed != self._believed:
            log.warning(
                "the clock has been steady for six hours: results are deleted for their age again"
                if believed
                else "the clock jumped, or the machine was off for long: for six hours no result is deleted for its age"
            )
        self._believed = believed
        return _delete(self._spool, _decide(self._spool, results, self._limits, self._min_free, now, believed=believed))

    def call_every(self, seconds: float, target: Callable[[], object]) -> None:
        """Call `target` on schedule as well, each time after so many seconds; never if they are infinite."""
        if math.isfinite(seconds):
            self.scheduler.every(seconds).seconds.do(target)  # type: ignore[arg-type] # floats work

    def run(self, stop: threading.Event) -> None:
        """Prune now, and then on schedule, until `stop` is set; a run that fails is logged, and the next one comes."""
        self.scheduler.run_all()
        every_s = self._limits.every
        while not stop.wait(min(max(self._idle_s(), 0.0), every_s)):
            # schedule goes by the wall clock; put back by a year, it would make the next run a year away.
            if self._idle_s() > every_s:
                self.scheduler.run_all()
            else:
                self.scheduler.run_pending()

    def _idle_s(self) -> float:
        return self.scheduler.idle_seconds or 0.0

    def _tidy_or_log(self) -> None:
        # schedule never advances the next run of a job that raises: it would be run again at once, for ever.
        try:
            self.tidy(datetime.now(UTC), time.clock_gettime(time.CLOCK_BOOTTIME))
            gc.collect(self._spool, self._layers.max_total, datetime.now(UTC))
        except Exception:
            log.exception("pruning %s failed; the next try is in %g s", self._spool.path, self._limits.every)
        try:
            self._chore()
        except Exception:
            log.exception("a chore failed; the next try is in %g s", self._limits.every)
