"""The part that tells: it looks for what is new, remembers it, and has it go to whom it concerns.

What is seen is in news.json before anything is sent, and leaves it once it was sent: at least once, in order for each
recipient. Mail, webhook and command have a thread each, so that none waits for another one.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from construir_ftp.jobs.spool import Spool
from construir_ftp.news import events, memory
from construir_ftp.news.arrivals import Arrivals
from construir_ftp.news.boxes import Box
from construir_ftp.news.delivery import RejectedError, UndeliveredError
from construir_ftp.news.events import Condition, Event, Message
from construir_ftp.news.memory import Lasting

log = logging.getLogger("construir.news")

# A condition that has not been there for so long is over: a pause of the runner comes and goes.
OVER_AFTER_S = 600.0
# What ended longer ago is no news, as when nobody was told anything for weeks.
_STALE = timedelta(days=7)
# What ended so shortly before the first look ever may have been sent since the appliance was started.
_STARTING = timedelta(minutes=1)
# What could not be told for so long never will be.
_GIVEN_UP_AFTER = timedelta(days=3)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 1800.0
_LONGEST_WAIT_S = 30.0

# Sends a message to a recipient; raises UndeliveredError and RejectedError.
Carry = Callable[[Message, str], None]


class Look(NamedTuple):
    """What is found out about the appliance: what is not well, and how often each part came to a bad end so far."""

    conditions: tuple[Condition, ...]
    crashes: Mapping[str, int]


class Plan(NamedTuple):
    """Who is told what, and how. `carriers` are by the kind of recipient, which is what its name begins with.

    `for_trouble` are recipients of conditions, `for_jobs` those of every job's end; a contributor gets their own by
    "contributor:NAME", if `reaches` is true of the name. `name` is the appliance's, `server` its address, if that is
    known.
    """

    carriers: Mapping[str, Carry]
    for_trouble: tuple[str, ...]
    for_jobs: tuple[str, ...]
    name: str
    reaches: Callable[[str], bool] = lambda _: True
    server: str = ""
    most_per_hour: int = 10
    over_after_s: float = OVER_AFTER_S


def kind_of(recipient: str) -> str:
    """What carries news to a recipient: operators and contributors get mail."""
    kind = recipient.partition(":")[0]
    return "mail" if kind in ("operator", "contributor") else kind


class Herald:
    """Of one spool. To be started, have `look` called again and again, and be closed."""

    def __init__(self, spool: Spool, plan: Plan, pause_s: float = _FIRST_PAUSE_S) -> None:
        self._spool, self._plan, self._pause_s = spool, plan, pause_s
        self._memory = memory.load(spool.path)
        self._arrivals = Arrivals(spool)
        self._changed = threading.Condition()
        self._is_closing = self._is_unsaved = self._has_failed = False
        self._pauses: dict[str, tuple[float, float]] = {}  # of a recipient: how long the last one was, until when
        # What lasted when the last one ended is over only if it doesn't come back.
        now, lasting = datetime.now(UTC), self._memory.conditions
        self._memory.conditions = {subject: Lasting(seen.kind, now) for subject, seen in lasting.items()}
        known = {*plan.for_trouble, *plan.for_jobs}
        self._memory.boxes = {name: box for name, box in self._memory.boxes.items() if self._is_wanted(name, known)}
        self._threads = [
            threading.Thread(target=self._carry_all, args=(kind,), name=kind, daemon=True) for kind in plan.carriers
        ]

    def _is_wanted(self, recipient: str, known: set[str]) -> bool:
        is_contributor = recipient.startswith("contributor:") and "mail" in self._plan.carriers
        return is_contributor or recipient in known

    def start(self) -> None:
        """Begin to tell."""
        for thread in self._threads:
            thread.start()

    def close(self, patience_s: float) -> None:
        """End; what is being sent has so long, and is sent again at the next start if that isn't enough."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        deadline_s = time.monotonic() + patience_s
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    # -- what is new -------------------------------------------------------------------------------

    def look(self, found: Look, now: datetime | None = None) -> None:
        """Note what has changed since the last time: results, conditions, parts that were started again."""
        now = now or datetime.now(UTC)
        with self._changed:
            fresh = [*self._of_results(now), *self._of_conditions(found.conditions, now)]
            fresh += self._of_crashes(found.crashes, now)
            for event in fresh:
                self._put(event)
            if fresh or self._is_unsaved:
                self._save()
                self._changed.notify_all()

    def _of_results(self, now: datetime) -> Iterable[Event]:
        names = self._arrivals.look()
        if names is None:
            return
        there, known = set(names), self._memory.results
        fresh = self._arrivals.since(there, now - _STARTING) if known is None else there - known
        arrived = self._arrivals.read(fresh)
        self._memory.results = there - self._arrivals.unread
        self._is_unsaved = self._is_unsaved or self._memory.results != known
        for job_id, result in arrived:
            event = events.ended(job_id, result, now, self._plan.server)
            if now - event.time < _STALE:
                yield event

    def _of_conditions(self, conditions: Iterable[Condition], now: datetime) -> Iterable[Event]:
        lasting = self._memory.conditions
        for condition in conditions:
            if condition.subject not in lasting:
                yield events.begins(condition, now)
            lasting[condition.subject] = Lasting(condition.kind, now)
        for subject, condition_seen in list(lasting.items()):
            if (now - condition_seen.seen).total_seconds() > self._plan.over_after_s:
                del lasting[subject]
                yield events.is_over(condition_seen.kind, subject, now)

    def _of_crashes(self, crashes: Mapping[str, int], now: datetime) -> Iterable[Event]:
        before, self._memory.crashes = self._memory.crashes, dict(crashes)
        self._is_unsaved = self._is_unsaved or before != self._memory.crashes
        for part, count in crashes.items():
            more = count - (before or {}).get(part, 0)
            if before is not None and more > 0:
                yield events.restarted(part, more, now)

    def _put(self, event: Event) -> None:
        everyone = self._plan.for_trouble if event.kind != "job" else self._plan.for_jobs
        has_own = event.contributor and "mail" in self._plan.carriers and self._plan.reaches(event.contributor)
        for recipient in (*everyone, *([f"contributor:{event.contributor}"] if has_own else ())):
            self._memory.boxes.setdefault(recipient, Box()).put(event)

    def _save(self) -> None:
        boxes, now_s = self._memory.boxes, time.time()
        self._memory.boxes = {name: box for name, box in boxes.items() if not box.is_empty(now_s)}
        try:
            memory.save(self._spool.path, self._memory)
            self._is_unsaved = self._has_failed = False
        except OSError as error:
            # A full disk is just what has to be told. It is tried again at the next look.
            if not self._has_failed:
                log.error("what was told can't be remembered, and may be told again: %s", error)  # noqa: TRY400
            self._is_unsaved = self._has_failed = True

    # -- telling -----------------------------------------------------------------------------------

    def _carry_all(self, kind: str) -> None:
        """A carrier's thread."""
        while True:
            with self._changed:
                while not self._is_closing and (due := self._next(kind)) is None:
                    self._changed.wait(min(_LONGEST_WAIT_S, self._pause_s))
                if self._is_closing or due is None:
                    return
            self._carry(*due)

    def _next(self, kind: str) -> tuple[str, tuple[Event, ...], int] | None:
        """A recipient whose time has come, and what goes now."""
        for recipient, box in self._memory.boxes.items():
            is_resting = self._pauses.get(recipient, (0.0, 0.0))[1] > time.monotonic()
            if kind_of(recipient) == kind and not is_resting:
                due = tuple(box.due(time.time(), self._plan.most_per_hour))
                if due:
                    return recipient, due, box.left_out
        return None

    def _carry(self, recipient: str, due: tuple[Event, ...], left_out: int) -> None:
        message = events.message(due, left_out, self._plan.name)
        try:
            self._plan.carriers[kind_of(recipient)](message, recipient)
        except RejectedError as error:
            log.error("%s will never be told %r: %s", recipient, message.subject, error)  # noqa: TRY400
        except Exception as error:
            is_fault = not isinstance(error, UndeliveredError)
            if is_fault:
                log.exception("%s could not be told %r", recipient, message.subject)
            if due[-1].time > datetime.now(UTC) - _GIVEN_UP_AFTER:
                self._rest(recipient, "a fault of ours" if is_fault else str(error))
                return
            log.error("%s is not told %r any more: %s", recipient, message.subject, error)  # noqa: TRY400
        else:
            log.info("told %s: %s", recipient, message.subject)
        with self._changed:
            self._pauses.pop(recipient, None)
            self._memory.boxes[recipient].told(due, left_out, time.time())
            self._save()

    def _rest(self, recipient: str, why: str) -> None:
        with self._changed:
            last_s = self._pauses.get(recipient, (0.0, 0.0))[0]
            pause_s = min(_LONGEST_PAUSE_S, last_s * 2 or self._pause_s)
            self._pauses[recipient] = (pause_s, time.monotonic() + pause_s)
        log.warning("%s is not told yet, next try in %g s: %s", recipient, pause_s, why)
