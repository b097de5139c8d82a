"""Passwords on their way to being checked: each waits for its pause (see backoff) and for its turn.

A check takes a tenth of a second of all processors on purpose (argon2), so that whoever sends many could keep all
others waiting. Here an address has its turn like any other, with one password, however many it has sent; and every
other turn goes to the names that are known where they come from. For the event loop's thread.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from construir_ftp.config import FtpSection
from construir_ftp.errors import ConfigError
from construir_ftp.ftp.backoff import Backoff
from construir_ftp.ftp.ioloop import PASSWORDS_AT_ONCE, Background
from construir_ftp.ftp.users import Users

log = logging.getLogger("construir.ftp")


@dataclass(eq=False)
class Attempt:
    """A password that somebody has sent, and who is to be told whether it is right."""

    network: str
    name: str
    password: str = field(repr=False)
    then: Callable[[bool], None]
    is_known: bool = False
    not_before: float = 0.0

    @property
    def lane(self) -> tuple[bool, str]:
        """Whom it takes turns with: known names with each other, all else by address."""
        return self.is_known, self.name if self.is_known else self.network


class Passwords:
    """All that are being checked, or wait for it: one of each session at most, so they are as bounded as those."""

    def __init__(self, users: Users, background: Background, ioloop: Any, ftp: FtpSection) -> None:
        self._users, self._background, self._ioloop = users, background, ioloop
        self._backoff = Backoff(ftp)
        self._lanes: OrderedDict[tuple[bool, str], list[Attempt]] = OrderedDict()
        self._checking: list[Attempt] = []
        self._known_are_next = True
        self._timer: Any = None
        self._is_closed = False

    def wait_s(self, network: str, name: str) -> float:
        """How long a password for `name` from there would have to wait at least."""
        return self._backoff.wait_s(network, name, time.monotonic())

    def check(self, attempt: Attempt) -> None:
        """Have it checked in its turn; then `attempt.then` is called, unless it is dropped before."""
        now = time.monotonic()
        self._line_up(attempt, now)
        self._proceed()

    def drop(self, attempt: Attempt) -> None:
        """Nobody waits for the answer any longer."""
        if attempt in self._lanes.get(attempt.lane, []):
            self._take_out(attempt)
            self._proceed()

    def close(self) -> None:
        """Begin no more checks, and forget what waits."""
        self._is_closed = True
        self._lanes.clear()
        self._set_timer(None)

    def _line_up(self, attempt: Attempt, now: float) -> None:
        attempt.is_known = self._backoff.is_known(attempt.network, attempt.name, now)
        attempt.not_before = now + self._backoff.wait_s(attempt.network, attempt.name, now)
        self._lanes.setdefault(attempt.lane, []).append(attempt)

    def _take_out(self, attempt: Attempt) -> None:
        self._lanes[attempt.lane].remove(attempt)
        if not self._lanes[attempt.lane]:
            del self._lanes[attempt.lane]

    def _proceed(self) -> None:
        now = time.monotonic()
        while len(self._checking) < PASSWORDS_AT_ONCE and (attempt := self._next(now)) is not None:
            self._take_out(attempt)
            if attempt.lane in self._lanes:
                self._lanes.move_to_end(attempt.lane)
            self._known_are_next = not attempt.is_known
            self._checking.append(attempt)
            self._background.password(partial(self._is_right, attempt), partial(self._judged, attempt))
        waits = [self._wait_s(attempt, now) for lane in self._lanes.values() for attempt in lane]
        later = [wait_s for wait_s in waits if wait_s > 0]
        self._set_timer(min(later) if later and not self._is_closed else None)

    def _next(self, now: float) -> Attempt | None:
        ready = [self._ready(lane, now) for lane in self._lanes.values()]
        fair = [attempt for attempt in ready if attempt is not None]
        preferred = (attempt for attempt in fair if attempt.is_known == self._known_are_next)
        return next(preferred, fair[0] if fair else None)

    def _ready(self, lane: list[Attempt], now: float) -> Attempt | None:
        """The first of a lane whose pause is over; none of an address while another of its guesses is being checked."""
        attempt = next((attempt for attempt in lane if self._wait_s(attempt, now) <= 0), None)
        if attempt is None or attempt.is_known:
            return attempt
        return None if attempt.lane in [other.lane for other in self._checking] else attempt

    def _wait_s(self, attempt: Attempt, now: float) -> float:
        # An address that has been wrong meanwhile waits longer than it was told; a known pair doesn't.
        anew_s = 0.0 if attempt.is_known else self._backoff.address_wait_s(attempt.network, now)
        return max(attempt.not_before - now, anew_s)

    def _set_timer(self, wait_s: float | None) -> None:
        if self._timer is not None and not self._timer.cancelled:
            self._timer.cancel()
        self._timer = None if wait_s is None else self._ioloop.call_later(wait_s, self._proceed)

    def _is_right(self, attempt: Attempt) -> bool | None:
        """Whether it is right; None if that can't be said, for which nobody is to be blamed. In the background."""
        try:
            return self._users.check(attempt.name, attempt.password)
        except ConfigError as error:
            log.error("%s: nobody can log in", error)  # noqa: TRY400 - the message says it all
        except Exception:
            log.exception("a password could not be checked")
        return None

    def _judged(self, attempt: Attempt, is_right: bool | None) -> None:
        self._checking.remove(attempt)
        now = time.monotonic()
        if is_right:
            self._backoff.note_right(attempt.network, attempt.name, now)
            self._line_up_again(attempt, now)
        elif is_right is not None:
            self._backoff.note_wrong(attempt.network, attempt.name, now)
        try:
            attempt.then(bool(is_right))
        finally:
            if not self._is_closed:
                self._proceed()

    def _line_up_again(self, right: Attempt, now: float) -> None:
        """What else waits for the same name from the same address is not to wait as a stranger's any longer."""
        for attempt in [attempt for lane in self._lanes.values() for attempt in lane]:
            if (attempt.network, attempt.name) == (right.network, right.name):
                self._take_out(attempt)
                self._line_up(attempt, now)
