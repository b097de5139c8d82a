"""A wall clock that jumps, for all programs that are started with it.

clock.c stands between them and the kernel, and reads in a file how far the clock is off. Only CLOCK_REALTIME jumps, as
when somebody sets a computer's clock. The times of files do not, as if the clock jumped after each was written.
"""

import random
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")
_DAY_S = 86400
# How far off it may be, to both sides: a second, some minutes, a day; or some days, a month, a year.
NEAR_S = (0, 1, -1, 400, -400, _DAY_S, -_DAY_S)
FAR_S = (0, 5 * _DAY_S, -5 * _DAY_S, 40 * _DAY_S, -40 * _DAY_S, 400 * _DAY_S, -400 * _DAY_S)


def can_jump() -> bool:
    """Whether there is a compiler."""
    return shutil.which("gcc") is not None


class Clock:
    """One clock, right at first, which jumps to one of `offsets_s` each time."""

    def __init__(self, place: Path, offsets_s: Sequence[int]) -> None:
        self._offsets_s = offsets_s
        self._file, self._library = place / "clock", place / "clock.so"
        self._file.write_bytes(struct.pack("=q", 0))
        subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", self._library, _SOURCE], check=True)

    def within(self) -> list[str]:
        """The beginning of a command that is to go by it."""
        return ["env", f"LD_PRELOAD={self._library}", f"CLOCK_OFF={self._file}"]

    def jump(self, chance: random.Random) -> str:
        """Be off by another time, which it says."""
        off_s = chance.choice(self._offsets_s)
        # In place: it is mapped. Eight bytes that are aligned are read whole, or not yet.
        with self._file.open("r+b") as file:
            file.write(struct.pack("=q", off_s))
        return f"{off_s:+} s"
