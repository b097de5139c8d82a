"""Processes that outlived whoever started them: how they are marked, found and ended.

A jail is tied to its owner by the kernel (PR_SET_PDEATHSIG), but for its first milliseconds it isn't yet. So
everything in one carries its owner's name in its environment, and a start of the appliance ends what carries the name
of an owner that is gone. An owner is a process: its PID namespace, its number, and when it started, which
together never come again until the next boot.
"""

import os
import select
import signal
import time
from contextlib import suppress
from pathlib import Path

VARIABLE = "CONSTRUIR_OWNER"
_DEATH_S = 10.0
_SETTLE_S = 0.1


def owner() -> str:
    """The name of this process as an owner."""
    return f"{_pid_namespace()}-{os.getpid()}-{_started(os.getpid())}"


def is_gone(name: str) -> bool:
    """Whether the owner called `name` has ended. Of one in another PID namespace nothing is known, so it hasn't."""
    namespace, _, rest = name.partition("-")
    pid, _, started = rest.partition("-")
    if namespace != str(_pid_namespace()) or not (pid.isdigit() and started.isdigit()):
        return False
    return _started(int(pid)) != int(started)


def sweep() -> list[int]:
    """End every process whose owner is gone; returns those that were there. On return they are no more.

    Sees those of this user, and as root everyone's.
    """
    swept: list[int] = []
    # A process that is about to become another program has, for a moment, no environment, or still its parent's.
    for pause_s in (0.0, _SETTLE_S):
        time.sleep(pause_s)
        # Again until there is none: one of them may have started another meanwhile.
        while found := [pid for pid in _processes() if pid not in swept and is_gone(_owner_of(pid))]:
            for pid in found:
                kill(pid)
            swept += found
    return swept


def kill(pid: int) -> None:
    """SIGKILL, and wait for the end, at most 10 s. `pid` need not be a child of ours, nor be there at all."""
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [], _DEATH_S)
        finally:
            os.close(pidfd)


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _owner_of(pid: int) -> str:
    """The owner's name in a process's environment; empty for none, and for what may not be looked at."""
    mark = f"{VARIABLE}=".encode()
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((word.removeprefix(mark).decode(errors="replace") for word in environment if word.startswith(mark)), "")


def _started(pid: int) -> int:
    """When a process started, in ticks since boot (proc(5), stat, field 22); -1 if there is none, or only a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    return -1 if fields[0] in "ZX" else int(fields[19])


def _pid_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino
