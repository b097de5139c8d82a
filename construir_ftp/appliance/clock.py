"""How far the wall clock of an unattended machine can be trusted."""

from datetime import datetime

# A step that matters beside ages of hours and days; slewing and leap seconds stay far below.
_JUMP_S = 300.0
# Time enough for a machine without a battery to be given the time by its network; less than a working day, so
# that a machine that is switched off every night gets there too.
_STEADY_S = 6 * 3600.0


class Clock:
    """Whether the wall clock may be believed about ages: refuses mass deletion after a jump, but not for ever.

    Three things count: the wall clock against CLOCK_BOOTTIME between two looks (clock_gettime(2); it goes on
    while a laptop sleeps), whether ages look implausible to a process that has seen nothing yet, and how long
    there has been no jump. Doubt, once raised, stays until the clock has been steady for six hours: so a
    machine that was off for three months keeps its old results for its first six hours, and so does one that
    booted with a wrong clock, which the network has then had time to put right.
    """

    def __init__(self) -> None:
        self._offset_s: float | None = None
        self._steady_since_s = 0.0
        self._doubted = False

    def look(self, now: datetime, uptime_s: float, *, implausible: bool) -> bool:
        """Compare the clocks, `uptime_s` being CLOCK_BOOTTIME; True if ages may be believed."""
        offset_s = now.timestamp() - uptime_s
        jumped = self._offset_s is not None and abs(offset_s - self._offset_s) > _JUMP_S
        if jumped or self._offset_s is None:
            self._steady_since_s = uptime_s
        self._offset_s = offset_s
        steady = uptime_s - self._steady_since_s >= _STEADY_S
        self._doubted = not steady and (self._doubted or jumped or implausible)
        return not self._doubted
