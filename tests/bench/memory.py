"""Memory of machines that wait for a job: clones that have rehearsed, against as many that have booted.

Run from the repository: .venv/bin/python -m tests.bench.memory [MACHINES]

Of every process in each jail it is the Pss of /proc/PID/smaps_rollup (proc(5)), in which a page that several have in
common counts for each in part. The template is counted apart and once, as what its memory files hold: of the clones,
whose memory is a private mapping of them, only the rest (Pss without Pss_Shmem) is added to it.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path

from construir_ftp.machine.template import Template
from construir_ftp.machine.vm import Machine
from tests import bench
from tests.bench import Line
from tests.support.prison import descendants

BOOT_S = 120.0
KIB, MIB = 2**10, 2**20


def pss_bytes(machine: Machine) -> dict[str, int]:
    """The sums of the lines Pss, Pss_Anon, Pss_File and Pss_Shmem over all processes of its jail."""
    sums = dict.fromkeys(("Pss", "Pss_Anon", "Pss_File", "Pss_Shmem"), 0)
    for pid in descendants(machine._process.pid):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in sums:
                sums[name] += int(value.split()[0]) * KIB
    return sums


def all_at_once(count: int, start: Callable[[], AbstractContextManager[Machine]]) -> list[dict[str, int]]:
    """What each of so many machines takes while all of them wait."""
    with ExitStack() as stack:
        machines = [stack.enter_context(start()) for _ in range(count)]
        for machine in machines:
            machine.wait_until_ready(BOOT_S)
        return [pss_bytes(machine) for machine in machines]


def template_bytes(template: Template) -> int:
    """What is in its memory and in its state, holes left out."""
    return sum(os.fstat(descriptor).st_blocks * 512 for descriptor in (template._ram, template._state))


def main(count: int) -> None:
    shape, reason = bench.machine()
    booted = [pss["Pss"] for pss in all_at_once(count, lambda: Machine.start(shape))]
    with closing(Template.build(shape, BOOT_S)) as template:
        cloned = [pss["Pss"] - pss["Pss_Shmem"] for pss in all_at_once(count, template.waiting)]
        shared = template_bytes(template)
    lines = [
        Line(f"(a) {count} machines that have booted", [sum(booted)]),
        Line(f"{count} clones that have rehearsed, and their template", [sum(cloned) + shared]),
    ]
    single = [Line("(a) one that has booted", booted), Line("one clone", cloned), Line("the template", [shared])]
    print(f"memory of machines that wait; {reason}")
    bench.print_table("together", lines, "MiB", 1 / MIB)
    bench.print_table("each", single, "MiB", 1 / MIB)


if __name__ == "__main__":
    main(*bench.counts(10))
