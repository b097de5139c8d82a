"""How many machines a host is given, and what is left for larger ones."""

import os
import threading
import time

import msgspec
import pytest

from construir_ftp.config import MachineSection
from construir_ftp.errors import ConfigError
from construir_ftp.machine import capacity
from construir_ftp.machine.capacity import Spare
from construir_ftp.units import Size

CORES = len(os.sched_getaffinity(0))
HOST_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
TINY = MachineSection(cpus=1, memory=Size(2**20), scratch=Size(2**20))


def sized(cpus: int, size_bytes: int) -> MachineSection:
    """A machine whose memory is half of that size, and its scratch space, which is memory too, the other half."""
    half = Size(size_bytes // 2)
    return msgspec.structs.replace(TINY, cpus=cpus, memory=half, scratch=half)


def test_there_are_as_many_slots_as_machines_find_cores() -> None:
    assert capacity.slots(TINY) == CORES
    assert capacity.slots(msgspec.structs.replace(TINY, cpus=CORES)) == 1


def test_all_machines_together_leave_the_host_a_fifth_of_its_memory() -> None:
    for share in (10, 3, 2):
        machine = sized(1, HOST_BYTES // share)
        slots = capacity.slots(machine)
        assert slots == max(1, min(CORES, share * 4 // 5))
        taken_bytes = slots * (machine.memory + machine.scratch) + capacity.spare_bytes(machine, slots)
        assert taken_bytes <= HOST_BYTES * 4 // 5


def test_of_what_slurm_has_given_a_pilot_machines_get_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1000")
    machine = sized(1, 300 * 2**20)
    assert capacity.slots(machine) == min(CORES, 2)
    assert capacity.spare_bytes(machine, 1) == 500 * 2**20
    with pytest.raises(ConfigError, match="expected at most 1000 MiB together"):
        capacity.check(sized(1, 1001 * 2**20))


def test_a_host_too_small_for_one_machine_has_one_slot_and_nothing_to_spare() -> None:
    huge = sized(1, 2 * HOST_BYTES)
    assert (capacity.slots(huge), capacity.spare_bytes(huge, 1)) == (1, 0)
    assert capacity.slots(msgspec.structs.replace(TINY, cpus=CORES + 1)) == 1


def test_memory_is_lent_to_one_until_it_is_given_back_and_to_nobody_who_has_gone() -> None:
    spare, lent = Spare(3), []

    def borrow() -> None:
        with spare.lend(2, lambda: False) as has_memory:
            lent.append(has_memory)

    with spare.lend(2, lambda: False):
        borrower = threading.Thread(target=borrow)
        borrower.start()
        with spare.lend(2, lambda: True) as has_memory:
            assert not has_memory
        with spare.lend(1, lambda: False) as has_memory:
            assert has_memory
        time.sleep(0.1)
        assert lent == []
    borrower.join(60)
    assert lent == [True]
