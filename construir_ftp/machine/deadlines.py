"""When a machine is killed, and for what."""

import time
from collections.abc import Mapping
from typing import Literal

# Why a machine was ended by us: the job took too long, or was silent for too long; the guest did not come up, or did
# not mount the job's image; it did not switch itself off; nobody wants it any more.
Killed = Literal["timeout", "idle-timeout", "boot-timeout", "mount-timeout", "power-off-timeout", "stopped"]


class Deadlines:
    """Those of one machine, of which the next one counts. There is none until some are set.

    They go by a clock that stands still while the machine does.
    """

    def __init__(self) -> None:
        self._at_s: dict[Killed, float] = {}
        self._limits_s: dict[Killed, float] = {}
        self._stood_still_s = 0.0
        self._standing_since_s: float | None = None

    def set(self, from_now_s: Mapping[Killed, float]) -> None:
        """Replace all of them: each is what the machine is killed for when so many seconds have passed."""
        self._limits_s = dict(from_now_s)
        self._at_s = {meaning: self._now_s() + limit_s for meaning, limit_s in from_now_s.items()}

    def put_off(self, meaning: Killed) -> None:
        """Have one of them, if it is set, begin anew."""
        if meaning in self._at_s:
            self._at_s[meaning] = self._now_s() + self._limits_s[meaning]

    def next(self) -> Killed:
        """The one that comes first."""
        return min(self._at_s, key=self._at_s.__getitem__)

    def left_s(self) -> float:
        """How long it is to the next one, in seconds; negative when it has passed."""
        return self._at_s[self.next()] - self._now_s()

    def limit_s(self, meaning: Killed) -> float:
        """How long a machine has until then, in seconds, from when it was set."""
        return self._limits_s[meaning]

    def stand_still(self) -> None:
        """Have none of them come nearer until they go on."""
        if self._standing_since_s is None:
            self._standing_since_s = time.monotonic()

    def go_on(self) -> None:
        """Have them come nearer again."""
        if self._standing_since_s is not None:
            self._stood_still_s += time.monotonic() - self._standing_since_s
            self._standing_since_s = None

    def stood_still_s(self) -> float:
        """For how long they have not come nearer, all in all, in seconds."""
        standing_s = 0.0 if self._standing_since_s is None else time.monotonic() - self._standing_since_s
        return self._stood_still_s + standing_s

    def _now_s(self) -> float:
        now_s = time.monotonic() if self._standing_since_s is None else self._standing_since_s
        return now_s - self._stood_still_s
