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
class Guess:
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
        self._lanes: OrderedDict[tuple[bool, str], list[Guess]] = OrderedDict()
        self._checking: list[Guess] = []
        self._known_are_next = True
        self._timer: Any = None
        self._is_closed = False

    def wait_s(self, network: str, name: str) -> float:
        """How long a password for `name` from there would have to wait at least."""
        return self._backoff.wait_s(network, name, time.monotonic())

    def check(self, guess: Guess) -> None:
        """Have it checked in its turn; then `guess.then` is called, unless it is dropped before."""
        now = time.monotonic()
        self._line_up(guess, now)
        self._proceed()

    def drop(self, guess: Guess) -> None:
        """Nobody waits for the answer any longer."""
        if guess in self._lanes.get(guess.lane, []):
            self._take_out(guess)
            self._proceed()

    def close(self) -> None:
        """Begin no more checks, and forget what waits."""
        self._is_closed = True
        self._lanes.clear()
        self._set_timer(None)

    def _line_up(self, guess: Guess, now: float) -> None:
        guess.is_known = self._backoff.is_known(guess.network, guess.name, now)
        guess.not_before = now + self._backoff.wait_s(guess.network, guess.name, now)
        self._lanes.setdefault(guess.lane, []).append(guess)

    def _take_out(self, guess: Guess) -> None:
        self._lanes[guess.lane].remove(guess)
        if not self._lanes[guess.lane]:
            del self._lanes[guess.lane]

    def _proceed(self) -> None:
        now = time.monotonic()
        while len(self._checking) < PASSWORDS_AT_ONCE and (guess := self._next(now)) is not None:
            self._take_out(guess)
            if guess.lane in self._lanes:
                self._lanes.move_to_end(guess.lane)
            self._known_are_next = not guess.is_known
            self._checking.append(guess)
            self._background.password(partial(self._is_right, guess), partial(self._judged, guess))
        waits = [self._wait_s(guess, now) for lane in self._lanes.values() for guess in lane]
        later = [wait_s for wait_s in waits if wait_s > 0]
        self._set_timer(min(later) if later and not self._is_closed else None)

    def _next(self, now: float) -> Guess | None:
        ready = [self._ready(lane, now) for lane in self._lanes.values()]
        fair = [guess for guess in ready if guess is not None]
        preferred = (guess for guess in fair if guess.is_known == self._known_are_next)
        return next(preferred, fair[0] if fair else None)

    def _ready(self, lane: list[Guess], now: float) -> Guess | None:
        """The first of a lane whose pause is over; none of an address while another of its guesses is being checked."""
        guess = next((guess for guess in lane if self._wait_s(guess, now) <= 0), None)
        if guess is None or guess.is_known:
            return guess
        return None if guess.lane in [other.lane for other in self._checking] else guess

    def _wait_s(self, guess: Guess, now: float) -> float:
        # An address that has been wrong meanwhile waits longer than it was told; a known pair doesn't.
        anew_s = 0.0 if guess.is_known else self._backoff.address_wait_s(guess.network, now)
        return max(guess.not_before - now, anew_s)

    def _set_timer(self, wait_s: float | None) -> None:
        if self._timer is not None and not self._timer.cancelled:
            self._timer.cancel()
        self._timer = None if wait_s is None else self._ioloop.call_later(wait_s, self._proceed)

    def _is_right(self, guess: Guess) -> bool | None:
        """Whether it is right; None if that can't be said, for which nobody is to be blamed. In the background."""
        try:
            return self._users.check(guess.name, guess.password)
        except ConfigError as error:
            log.error("%s: nobody can log in", error)  # noqa: TRY400 - the message says it all
        except Exception:
            log.exception("a password could not be checked")
        return None

    def _judged(self, guess: Guess, is_right: bool | None) -> None:
        self._checking.remove(guess)
        now = time.monotonic()
        if is_right:
            self._backoff.note_right(guess.network, guess.name, now)
            self._line_up_again(guess, now)
        elif is_right is not None:
            self._backoff.note_wrong(guess.network, guess.name, now)
        try:
            guess.then(bool(is_right))
        finally:
            if not self._is_closed:
                self._proceed()

    def _line_up_again(self, right: Guess, now: float) -> None:
        """What else waits for the same name from the same address is not to wait as a stranger's any longer."""
        for guess in [guess for lane in self._lanes.values() for guess in lane]:
            if (guess.network, guess.name) == (right.network, right.name):
                self._take_out(guess)
                self._line_up(guess, now)
