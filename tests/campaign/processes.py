"""The processes of an appliance, found by their parents in /proc."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_LONG_S = 60.0


def descendants(pid: int) -> list[int]:
    """A process and all below it, parents first."""
    found, new = [], [pid]
    while new:
        found += new
        new = [child for parent in new for child in _children(parent)]
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):  # it has ended meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def words(pid: int) -> list[str]:
    """A process's command line; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def send(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to those that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def stop_all(pid: int) -> list[int]:
    """Stop a process and all below it, and what they start meanwhile; returns them."""
    stopped: list[int] = []
    while new := sorted(set(descendants(pid)) - set(stopped)):
        send(new, signal.SIGSTOP)
        stopped += new
    return stopped


def gone(pids: list[int]) -> None:
    """Wait until none of them is there."""
    deadline = time.monotonic() + _LONG_S
    while left := [pid for pid in pids if words(pid)]:
        assert time.monotonic() < deadline, f"still there: {[words(pid)[:3] for pid in left]}"
        time.sleep(0.05)


def resident_bytes(pid: int) -> int:
    """What a process has in memory (proc(5), statm)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    """How many descriptors it has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
