"""What a machine used, by the account of the host's kernel: neither the guest nor QEMU is asked.

QEMU is not our child but one of its descendants, in a jail, and reaped in there. What it used is added up in our child
as each of them is waited for (wait4(2), proc(5)).
"""

import os
import resource
from contextlib import suppress
from pathlib import Path

from construir_ftp.jail.prisoner import Prisoner
from construir_ftp.jobs.result import Usage

_ACCOUNT_BYTES = 4096
# The kernel counts resident pages for each processor apart, so that two readings of the same differ by some.
_COUNTED_APART_BYTES = 16 * 2**20


class Meter:
    """Follows one machine, which is to be reaped by it and nobody else."""

    def __init__(self, prisoner: Prisoner) -> None:
        self._prisoner = prisoner
        self._account: int | None = None
        self._written_before = 0
        self._resident_bytes = 0

    def begin(self) -> None:
        """Note that the guest is given its job now."""
        with suppress(OSError):
            # Open until the end: once a process has ended it is root's alone to open, though not to read.
            self._account = os.open(f"/proc/{self._prisoner.process.pid}/io", os.O_RDONLY | os.O_CLOEXEC)
            self._written_before = _written_bytes(Path(f"/proc/{self._prisoner.inside()}/io").read_text())

    def look(self) -> None:
        """Note what is only to be seen while QEMU lives; best called just before its end."""
        with suppress(OSError):
            status = Path(f"/proc/{self._prisoner.inside()}/status").read_text()
            self._resident_bytes = _number(status, "VmHWM") * 1024 or self._resident_bytes

    def reap(self) -> tuple[int, Usage]:
        """Wait for the end, and tell the status (Popen.returncode's way) of our child, and what was used."""
        pid = self._prisoner.process.pid
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        written_bytes = self._settle()  # the account ends when the process has been waited for
        _, status, used = os.wait4(pid, 0)
        usage = Usage(
            cpu_seconds=used.ru_utime + used.ru_stime,
            peak_memory_bytes=self._peak_bytes(used.ru_maxrss * 1024),
            written_bytes=written_bytes,
        )
        return os.waitstatus_to_exitcode(status), usage

    def _settle(self) -> int | None:
        if self._account is None:
            return None
        try:
            written_bytes = _written_bytes(os.pread(self._account, _ACCOUNT_BYTES, 0).decode())
            return max(0, written_bytes - self._written_before)
        except OSError:
            return None
        finally:
            os.close(self._account)

    def _peak_bytes(self, said_bytes: int) -> int:
        # A program inherits what the process that started it had resident at most: execve(2) puts it into ru_maxrss
        # (setmax_mm_hiwater_rss, fs/exec.c). Up to there wait4 speaks of us; the last look does not.
        own_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        is_ours = said_bytes <= own_bytes + _COUNTED_APART_BYTES
        return self._resident_bytes if self._resident_bytes and is_ours else said_bytes


def _written_bytes(account: str) -> int:
    """What a process wrote with write(2) and the like, and those it has waited for (/proc/PID/io, wchar).

    Neither write_bytes nor ru_oublock: both count pages as they become dirty, once until they are written back, for the
    process that was the first to do so; none on a tmpfs. Rewriting 20 MiB three times was 20 MiB to them.
    """
    return _number(account, "wchar")


def _number(text: str, key: str) -> int:
    """What a file of proc(5) says after "key:"; 0 where there is nothing to say, as of the memory of what has ended."""
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{key}:")), 0)
