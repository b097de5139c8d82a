"""What keeps pilots from being started: told once when it begins, and for how long nothing is tried after it."""

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

log = logging.getLogger("construir.pilots")

_FIRST_S = 30.0
_LONGEST_S = 600.0


class _Trouble(NamedTuple):
    detail: str
    times: int
    until_s: float


class Troubles:
    """Those that last, by what is told anyone of each. The one that began last is the worst."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._lasting: dict[str, _Trouble] = {}

    def begin(self, what: str, detail: str) -> None:
        """Note one, or that it goes on. `detail` is for the operator."""
        known = self._lasting.pop(what, None)
        times = known.times + 1 if known else 1
        pause_s = min(_LONGEST_S, _FIRST_S * 2 ** min(times - 1, 10))
        self._lasting[what] = _Trouble(detail, times, self._now_s() + pause_s)
        if known is None or known.detail != detail:
            log.error("%s: %s", what, detail)

    def end(self, what: str) -> None:
        """Note that there is none of this kind."""
        if self._lasting.pop(what, None):
            log.info("it is over that %s", what)

    def have_to_wait(self) -> bool:
        """Whether one has come so short a time ago that it would only come again; longer after each time."""
        return any(self._now_s() < trouble.until_s for trouble in self._lasting.values())

    def worst(self) -> tuple[str, str]:
        """What is told anyone, and the operator; nothing where there is none."""
        for what, trouble in reversed(self._lasting.items()):
            return what, f"{what}: {trouble.detail}"
        return "", ""
