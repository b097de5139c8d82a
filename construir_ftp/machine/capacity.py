"""How much this host can hold at once: how many machines of the usual size, and what is left for larger ones."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from construir_ftp.config import MachineSection
from construir_ftp.errors import ConfigError


def _host_bytes() -> int:
    """What this host has, or what Slurm has given us of it (sbatch(1), SLURM_MEM_PER_NODE, in MiB)."""
    physical_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    granted_mib = os.environ.get("SLURM_MEM_PER_NODE", "")
    return min(physical_bytes, int(granted_mib) << 20) if granted_mib.isdecimal() else physical_bytes


def _memory_bytes() -> int:
    """Four fifths of the host's memory: what machines may use."""
    return _host_bytes() * 4 // 5


def check(machine: MachineSection) -> str:
    """Raises ConfigError if not even one machine finds room in this host's memory; what there is, in words."""
    needed_bytes, host_bytes = machine.memory + machine.scratch, _host_bytes()
    if needed_bytes > host_bytes:
        raise ConfigError(
            f"machine.memory and machine.scratch: expected at most {host_bytes >> 20} MiB together, which is all that"
            f" this host has, got {needed_bytes >> 20} MiB"
        )
    count = slots(machine)
    return f"{host_bytes >> 20} MiB, for {count} machine{'s' * (count > 1)} of {needed_bytes >> 20} MiB at once"


def slots(machine: MachineSection) -> int:
    """How many machines at once: a core for each of theirs, and memory for all; at least one."""
    by_cores = len(os.sched_getaffinity(0)) // machine.cpus
    return max(1, min(by_cores, _memory_bytes() // (machine.memory + machine.scratch)))


def processors_short(machine: MachineSection) -> str:
    """Why machines have more processors than there are, and by which key; empty if they haven't."""
    here = len(os.sched_getaffinity(0))
    if machine.cpus <= here:
        return ""
    return f"machine.cpus is {machine.cpus}; this host has {here}, so that a machine's would wait for each other"


def spare_bytes(machine: MachineSection, slots: int) -> int:
    """Memory beyond the usual of that many machines, those of installs among them, for jobs that ask for more."""
    return max(0, _memory_bytes() - slots * (machine.memory + machine.scratch))


# -- what is left for larger machines ----------------------------------------------------------------------------

# Memory for machines that are larger than usual: each slot has room for a usual one, and this is what they share.

_LOOK_S = 0.5


class Spare:
    """So many bytes, lent in the order of asking to whoever fits. Safe to use from several threads."""

    def __init__(self, size_bytes: int) -> None:
        self._free_bytes = size_bytes
        self._changed = threading.Condition()

    @contextmanager
    def lend(self, wanted_bytes: int, is_over: Callable[[], bool]) -> Iterator[bool]:
        """Wait until there are so many bytes, which are ours for as long as the context lasts; false if `is_over` says
        that nobody needs them any more. More than there can ever be is never had: ask for no more than was offered.
        """
        with self._changed:
            while wanted_bytes > self._free_bytes:
                if is_over():
                    yield False
                    return
                self._changed.wait(_LOOK_S)
            self._free_bytes -= wanted_bytes
        try:
            yield True
        finally:
            with self._changed:
                self._free_bytes += wanted_bytes
                self._changed.notify_all()
