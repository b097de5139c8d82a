"""Where jobs are prepared that need Debian packages: places beside the slots, so that nobody else waits for an install.

A job is taken out of the queue when its turn comes among those that need packages, so two contributors' installs take
turns. While its layer is made, and until a slot is free for it then, it is in running/. No more are prepared than can
soon be run.
"""

import threading
import time
from collections.abc import Callable, Iterable

from construir_ftp.jobs.result import moment
from construir_ftp.jobs.status import RunningJob
from construir_ftp.runner.attempt import Attempt
from construir_ftp.runner.slot import Slot, Work

_WAITS_FOR_SLOT = "it has its Debian packages, and waits for a slot"


class Installs:
    """So many places, each a thread with one job at a time; and the jobs that have been prepared in them."""

    def __init__(self, places: int) -> None:
        self.places = [Slot() for _ in range(places)]
        self._lock = threading.Lock()
        self._ready: list[tuple[float, Attempt]] = []

    def start(self, work: Work, is_free: Callable[[], object]) -> None:
        """Begin; see Slot.start. What `work` has prepared it gives to `add`."""
        for place in self.places:
            place.start(work, is_free, lambda: None)

    def free_place(self) -> Slot | None:
        """Where the next job can be prepared; none while as many wait for a slot as there are places."""
        with self._lock:
            if len(self._ready) >= len(self.places):
                return None
        return next((place for place in self.places if not place.is_busy), None)

    def add(self, attempt: Attempt) -> None:
        """A job that waits for a slot from now on."""
        with self._lock:
            self._ready.append((time.time(), attempt))

    def take(self) -> Attempt | None:
        """The one that has waited longest."""
        with self._lock:
            return self._ready.pop(0)[1] if self._ready else None

    def take_cancelled(self) -> list[Attempt]:
        """Those whose contributors want no more of them."""
        with self._lock:
            cancelled = [attempt for _, attempt in self._ready if attempt.job.is_cancelled()]
            self._ready = [(since, attempt) for since, attempt in self._ready if attempt not in cancelled]
        return cancelled

    def in_hand(self, slots: Iterable[Slot]) -> set[str]:
        """The ids of all jobs that somebody has: one of these slots, a place, or who waits for a slot."""
        held = {job.id for slot in (*slots, *self.places) if (job := slot.job) is not None}
        with self._lock:
            return held | {attempt.job.id for _, attempt in self._ready}

    def report(self) -> list[RunningJob]:
        """What is told of the jobs that wait for a slot."""
        with self._lock:
            ready = list(self._ready)
        return [RunningJob(attempt.job.id, moment(since), _WAITS_FOR_SLOT, installs=True) for since, attempt in ready]
