"""From the start of a job to the first line of its run.sh: cold, warm and pooled, in the jail; and user-mode.

Against (a) QEMU's start, unjailed, to its guest's first instruction, and (b) a stock Debian machine with systemd, made
and run by debvm (the Debian package), from its start to its first command. The aims for a warm and a cold start, 300 ms
and 1300 ms, were set on a host where (b) takes 13 s; so that they mean the same on any, they are printed as parts of
(b). Run from the repository:
.venv/bin/python -m tests.bench.start [ROUNDS [ROUNDS OF (b)]]
"""

import time
from contextlib import closing

from construir_ftp.config import Config
from construir_ftp.machine.ending import Assignment
from construir_ftp.machine.shape import Shape
from construir_ftp.machine.template import Template
from construir_ftp.machine.vm import Machine
from construir_ftp.machine.waiting import Source
from tests import bench
from tests.bench import Row, bare, stock
from tests.support import machines
from tests.support.images import job_directory
from tests.support.machines import assignment

# A waiting machine has waited: what its host had in its caches is gone.
IDLE_S = 1.0


def first_line_s(machine: Machine, task: Assignment, begun: float) -> float:
    printed = machine.run(task).first_output
    assert printed is not None
    return printed - begun


def cold_s(shape: Shape, task: Assignment) -> float:
    begun = time.time()
    with Machine.start(shape) as machine:
        return first_line_s(machine, task, begun)


def warm_s(template: Template, task: Assignment) -> float:
    begun = time.time()
    with template.clone() as machine:
        return first_line_s(machine, task, begun)


def pooled_s(template: Source, task: Assignment) -> float:
    with template.waiting() as machine:
        time.sleep(IDLE_S)
        return first_line_s(machine, task, time.time())


def main(rounds: int, stock_rounds: int) -> None:
    shape, reason = bench.machine()
    user_mode = machines.of_kind("uml", Config().images_path())
    with bench.workplace() as place, closing(Template.build(shape, 60)) as template:
        kernel, job = bare.tiny_kernel(place), job_directory(place / "job", bench.FIRST_LINE)
        rows = [
            Row("(a) QEMU start to first guest instruction", lambda: bare.floor_s(shape, kernel)),
            *stock.rows(place, shape, stock_rounds),
            Row("pooled", lambda: pooled_s(template, assignment(place / "run", job)), "at most 2.5 (a), 1/200 (b)"),
            Row("warm", lambda: warm_s(template, assignment(place / "run", job)), "at most 1/43 (b)"),
            Row("cold", lambda: cold_s(shape, assignment(place / "run", job)), "at most 1/10 (b)"),
            Row("user-mode, cold", lambda: cold_s(user_mode, assignment(place / "run", job)), "at most 600 ms"),
        ]
        lines = bench.take_turns(rows, rounds)
    bench.print_table(f"to the first line of run.sh, jailed; {reason}", lines)


if __name__ == "__main__":
    main(*bench.counts(20, 5))
