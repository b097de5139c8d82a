"""When a machine is killed, and for what."""

import time
from collections.abc import Mapping
from typing import Literal

# Why a machine was ended by us: the job took too long, or was silent for too long; the guest did not come up, or did
# not mount the job's image; it did not switch itself off; nobody wants it any more.
Killed = Literal["timeout", "idle-timeout", "boot-timeout", "mount-timeout", "power-off-timeout", "stopped"]


class Deadlines:
    """Those of one machine, of which the next one counts. There is none until some are set."""

    def __init__(self) -> None:
        self._at_s: dict[Killed, float] = {}
        self._limits_s: dict[Killed, float] = {}

    def set(self, from_now_s: Mapping[Killed, float]) -> None:
        """Replace all of them: each is what the machine is killed for when so many seconds have passed."""
        self._limits_s = dict(from_now_s)
        self._at_s = {meaning: time.monotonic() + limit_s for meaning, limit_s in from_now_s.items()}

    def put_off(self, meaning: Killed) -> None:
        """Have one of them, if it is set, begin anew."""
        if meaning in self._at_s:
            self._at_s[meaning] = time.monotonic() + self._limits_s[meaning]

    def next(self) -> Killed:
        """The one that comes first."""
        return min(self._at_s, key=self._at_s.__getitem__)

    def left_s(self) -> float:
        """How long it is to the next one, in seconds; negative when it has passed."""
        return self._at_s[self.next()] - time.monotonic()

    def limit_s(self, meaning: Killed) -> float:
        """How long a machine has until then, in seconds, from when it was set."""
        return self._limits_s[meaning]
