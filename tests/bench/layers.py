"""Layers: what they cost a job's start, what making one costs, and how small it is.

(a) is the same machine without layers; (b) apt-get install of the same set in a machine of the same accelerator, from
files that it has already, and without making a layer of it.
Run from the repository: .venv/bin/python -m tests.bench.layers [ROUNDS [ROUNDS OF MAKING]]
"""

import shutil
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import msgspec

from construir_ftp.layers.apt import Archive, Plan
from construir_ftp.layers.build import Workshop
from construir_ftp.layers.squashfs import squash
from construir_ftp.layers.store import Layer, Store
from construir_ftp.machine.guest import Errand
from construir_ftp.machine.shape import Shape
from construir_ftp.machine.template import Template
from construir_ftp.machine.vm import Machine
from tests import bench
from tests.bench import Line, Row, timed
from tests.bench.start import warm_s
from tests.support.images import job_directory, tar
from tests.support.machines import assignment

COUNTS = (0, 1, 4, 8)
# Of any size that matters, yet made in a minute or so without KVM.
PACKAGES = ("make", "file", "tree")
TIMEOUT_S = 600
APT = b"""#!/bin/sh -e
export DEBIAN_FRONTEND=noninteractive
apt-get install --yes --no-install-recommends ./debs/*.deb
"""


def start_rows(place: Path, template: Template) -> list[Row]:
    """From a clone's start to the first line of run.sh, with so many layers."""
    layer, job = place / "layer.sqfs", job_directory(place / "job", bench.FIRST_LINE)
    squash(iter([tar()]), layer, 2**20)

    def take(count: int) -> float:
        errand = Errand(hostname="layers", filesystem="ext2", layers=count)
        return warm_s(template, assignment(place / "run", job, errand=errand, layers=(layer,) * count))

    names = {0: "(a) no layer"}
    return [Row(names.get(count, f"{count} layer{'s' if count > 1 else ''}"), partial(take, count)) for count in COUNTS]


def installed_s(place: Path, shape: Shape, files: list[Path]) -> float:
    """apt-get install in a machine, from its start to its end."""
    shutil.rmtree(place / "debs-job", ignore_errors=True)
    job = job_directory(place / "debs-job", APT)
    (job / "debs").mkdir()
    for file in files:
        shutil.copyfile(file, job / "debs" / file.name)
    size = f"{(sum(file.stat().st_size for file in files) >> 20) + 8}M"
    task = assignment(place / "run", job, size=size, timeout_s=TIMEOUT_S, idle_timeout_s=TIMEOUT_S)
    begun = time.monotonic()
    with Machine.start(shape) as machine:
        ending = machine.run(task)
    assert ending.claims.exit_code == 0, task.output.read_text()
    return time.monotonic() - begun


def make(place: Path, shape: Shape, archive: Archive, plan: Plan) -> Layer:
    """A layer in a new store."""
    shutil.rmtree(place / "layers", ignore_errors=True)
    (place / "layers").mkdir()
    return Workshop(Store(place / "layers"), archive, shape, TIMEOUT_S).ensure(plan)


def main(rounds: int, making_rounds: int) -> None:
    usual, reason = bench.machine()
    shape = msgspec.structs.replace(usual, read_only_disks=max(COUNTS))
    with bench.workplace() as place:
        with closing(Template.build(shape, 60)) as template:
            lines = bench.take_turns(start_rows(place, template), rounds)
            bench.print_table(f"from a clone's start to the first line of run.sh ({reason})", lines)
        if making_rounds:
            archive = Archive(place / "archive", shape.base)
            archive.refresh()
            plan = archive.resolve(PACKAGES)
            files = archive.fetch(plan)
            rows = [
                Row("(b) apt-get install in a machine, no layer", lambda: installed_s(place, shape, files)),
                Row("the layer", lambda: timed(lambda: make(place, shape, archive, plan))),
            ]
            bench.print_table(f"installing {' '.join(PACKAGES)}", bench.take_turns(rows, making_rounds), "s", 1)
            manifest = make(place, shape, archive, plan).manifest
            sizes = [Line("(c) installed, as the packages say", [manifest.installed_bytes])]
            bench.print_table("how large it is", [*sizes, Line("the layer", [manifest.bytes])], "KiB", 1 / 1024)


if __name__ == "__main__":
    main(*bench.counts(15, 3))
