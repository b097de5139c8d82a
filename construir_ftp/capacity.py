"""How much this host can hold at once: how many machines of the usual size, and what is left for larger ones."""

import os

from construir_ftp.config import MachineSection


def _memory_bytes() -> int:
    """Four fifths of the host's memory: what machines may use."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 4 // 5


def slots(machine: MachineSection) -> int:
    """How many machines at once: a core for each of theirs, and memory for all; at least one."""
    by_cores = len(os.sched_getaffinity(0)) // machine.cpus
    return max(1, min(by_cores, _memory_bytes() // (machine.memory + machine.scratch)))


def spare_bytes(machine: MachineSection, slots: int) -> int:
    """Memory beyond the usual of that many machines, for those that ask for more."""
    return max(0, _memory_bytes() - slots * (machine.memory + machine.scratch))
