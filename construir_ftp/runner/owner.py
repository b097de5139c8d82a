"""Whether somebody else wants this computer: by the hour, by what other programs take, by who is at work at it.

What is told of it may be told to anyone. Sources: proc(5), /proc/stat and /proc/PID/stat; w(1) for a terminal's access
time, which is when somebody has last typed at it; loginctl(1).
"""

import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from construir_ftp import process
from construir_ftp.config import RunnerSection
from construir_ftp.errors import CommandError
from construir_ftp.jobs import service
from construir_ftp.machine import brake

log = logging.getLogger("construir.runner")

BUSY = "its computer is busy with other work"
AT_WORK = "somebody is at work at its computer"
UNKNOWN = "it is being seen whether its computer is idle"
LOOK_S = 5.0
# So long nobody may have wanted it before machines go on.
CALM_S = 10.0
_HOURS_S = 30.0
_LOGIND_S = 10.0
_TERMINALS = ("pts/[0-9]*", "tty[0-9]*", "ttyS[0-9]*", "hvc[0-9]*")
_SESSIONS = Path("/run/systemd/sessions")


class Owner:
    """Who comes before jobs, as the configuration says; looked for every `look_s` seconds."""

    def __init__(self, settings: RunnerSection, look_s: float = LOOK_S, calm_s: float = CALM_S) -> None:
        self._settings, self._look_s, self._calm_s = settings, look_s, calm_s
        self._why = UNKNOWN
        self._before = _Times.now()
        self._look_at_s = time.monotonic() + look_s
        self._calm_since_s: float | None = None

    def why(self) -> str:
        """Why machines are to stand still now; empty if they may run."""
        hours = self._settings.hours
        if not hours.include(datetime.now().astimezone().time()):
            return f"it works from {hours.replace('-', ' to ')} only"
        if self._settings.when == "always":
            return ""
        if time.monotonic() >= self._look_at_s:
            self._look(time.monotonic())
        return self._why

    def patience_s(self) -> float:
        """After how long to ask again."""
        if self._settings.when == "idle":
            return max(0.0, self._look_at_s - time.monotonic())
        return _HOURS_S if self._settings.hours else math.inf

    def _look(self, now_s: float) -> None:
        self._look_at_s = now_s + self._look_s
        if wanted := self._wanted():
            self._why, self._calm_since_s = wanted, None
        elif self._calm_since_s is None:
            self._calm_since_s = now_s
        elif now_s - self._calm_since_s >= self._calm_s:
            self._why = ""

    def _wanted(self) -> str:
        now = _Times.now()
        share, self._before = now.share_of_others(self._before), now
        if share * 100 > self._settings.busy:
            return BUSY
        return AT_WORK if self._settings.away and is_somebody_at_work(self._settings.away) else ""


class Standstill:
    """Of the machines of one runner: whether whoever comes before jobs wants it, an operator or the owner; and why."""

    def __init__(self, spool: Path, settings: RunnerSection) -> None:
        self._spool, self._owner = spool, Owner(settings)
        self.why = ""

    def heed(self) -> None:
        """Have machines stand still, or go on, as it is wanted now."""
        decided = service.read(self._spool)
        why = self._owner.why() if decided.runs_machines else decided.why
        if why == self.why:
            return
        log.info("paused, machines stand still: %s", why) if why else log.info("machines go on")
        self.why = why
        brake.pause() if why else brake.resume()

    def patience_s(self) -> float:
        """After how long to ask again."""
        return self._owner.patience_s()


# -- what programs take ------------------------------------------------------------------------------------------


class _Times:
    """Processor time since the start of this computer, in ticks: all there was, what was used, what we used of that."""

    def __init__(self, everything: int, used: int, ours: int) -> None:
        self._everything, self._used, self._ours = everything, used, ours

    @classmethod
    def now(cls) -> "_Times":
        user, nice, system, idle, waiting, *interrupts = map(
            int, Path("/proc/stat").read_text().split("\n")[0].split()[1:8]
        )
        used = user + nice + system + sum(interrupts)
        return cls(used + idle + waiting, used, _our_ticks())

    def of_others(self, before: "_Times") -> int:
        """What others have used since then."""
        return max(0, self._used - before._used - max(0, self._ours - before._ours))

    def share_of_others(self, before: "_Times") -> float:
        """The same of all processors: 0 to 1."""
        return self.of_others(before) / max(1, self._everything - before._everything)


def _our_ticks() -> int:
    """Of this appliance's processes, and of those that they have waited for."""
    parents, ticks = {}, {}
    for pid, parent, used in _processes():
        parents[pid], ticks[pid] = parent, used
    ours = {_top()}
    ours |= {pid for pid in parents if _is_in_our_units(pid)}
    while more := {pid for pid, parent in parents.items() if parent in ours and pid not in ours}:
        ours |= more
    return sum(ticks.get(pid, 0) for pid in ours)


def _processes() -> Iterator[tuple[int, int, int]]:
    """Of each one its number, its parent's, and its ticks."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # Its name, in parentheses, may hold anything.
            words = path.read_text(errors="replace").rpartition(")")[2].split()
            yield int(path.parent.name), int(words[1]), sum(map(int, words[11:15]))


def _top() -> int:
    """The supervisor, or this process if there is none."""
    with suppress(OSError):
        words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().split(b"\0")
        if b"serve" in words and any(word.endswith((b"construir", b"construir_ftp")) for word in words):
            return os.getppid()
    return os.getpid()


def _is_in_our_units(pid: int) -> bool:
    """Whether it belongs to a unit of the Debian package."""
    with suppress(OSError):
        return "/construir-" in Path(f"/proc/{pid}/cgroup").read_text()
    return False


# -- who is at work ------------------------------------------------------------------------------------------------


def is_somebody_at_work(away_s: float) -> bool:
    """Whether somebody has typed at a terminal within so many seconds, or a graphical session is not idle."""
    return (
        any(_typed_ago_s(path) < away_s for name in _TERMINALS for path in Path("/dev").glob(name)) or _is_in_session()
    )


def _typed_ago_s(terminal: Path) -> float:
    with suppress(OSError):
        return time.time() - terminal.stat().st_atime
    return math.inf


def _is_in_session() -> bool:
    if not _SESSIONS.is_dir() or process.find("loginctl") is None:
        return False
    try:
        listed = process.run(["loginctl", "list-sessions", "--no-legend"], timeout_s=_LOGIND_S)
        names = [line.split()[0] for line in listed.splitlines() if line.strip()]
        shown = ["loginctl", "show-session", *names, *(f"--property={key}" for key in ("Type", "State", "IdleHint"))]
        sessions = process.run(shown, timeout_s=_LOGIND_S) if names else ""
    except CommandError:  # one has just ended
        return False
    return any(_is_used(dict(line.split("=", 1) for line in one.splitlines())) for one in sessions.split("\n\n"))


def _is_used(session: dict[str, str]) -> bool:
    is_graphical = session.get("Type") in ("x11", "wayland", "mir")
    return is_graphical and session.get("State") == "active" and session.get("IdleHint") == "no"
