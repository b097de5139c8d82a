"""A program in a jail, seen from outside: how to end it, find it, and read how it ended."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from construir_ftp.jail import bubblewrap, cgroup
from construir_ftp.jail.bubblewrap import Means


class Prisoner:
    """A program in a jail. `process` is the outermost of its walls, and ends after all that is inside."""

    def __init__(
        self, outer: "subprocess.Popen[bytes]", means: Means, uid: int | None, group: cgroup.Group | None
    ) -> None:
        self.process = outer
        self.uid = uid
        self.group = group
        self._walled = means.walls != "none"
        self._kept = bubblewrap.has_keeper(means)

    def kill(self) -> None:
        """SIGKILL what is inside. `process` ends then; when it has, everything in the jail has.

        Only the program is killed, and what waits for it ends by itself: so wait4(2) on `process` tells what it used.
        """
        pid = self.process.pid
        if self.process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            if not self._walled:
                os.killpg(pid, signal.SIGKILL)
                return
            # Stopped, bubblewrap can't start or reap its child while we look for it.
            os.kill(pid, signal.SIGSTOP)
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            first = _child(pid)
            if not (first and self._kept and _kill_child(first)):
                os.kill(first or pid, signal.SIGKILL)
            os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        """SIGSTOP the program and all that it has started, as far as they are there yet."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Undo `stop`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self.process.returncode is None and (program := self.inside()):
            for pid in _family(program):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def inside(self) -> int | None:
        """The number, seen from here, of the program; None while bubblewrap has not started it, and after its end."""
        if not self._walled:
            return self.process.pid
        first = _child(self.process.pid)
        return _child(first) if first and self._kept else first

    def status(self, exit_code: int) -> int:
        """How the program ended, in the manner of Popen.returncode, given how `process` did.

        bubblewrap ends with 128 + N when its program was killed by signal N.
        """
        return 128 - exit_code if self._walled and exit_code > 128 else exit_code


def _child(pid: int) -> int | None:
    """The first child of a process whose only thread is its first (proc(5), /proc/PID/task/TID/children)."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return next(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()), None)
    return None


def _family(pid: int) -> Iterator[int]:
    """A process, and then its descendants, whichever of its threads has started them."""
    yield pid
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in sorted(Path(f"/proc/{pid}/task").iterdir()):
            for child in (thread / "children").read_text().split():
                yield from _family(int(child))


def _kill_child(pid: int) -> bool:
    """SIGKILL the child of a process, and nobody who got its number meanwhile; False if there is none."""
    child = _child(pid)
    if child is None:
        return False
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(child)
        try:
            if _child(pid) == child:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return True
        finally:
            os.close(pidfd)
    return False
