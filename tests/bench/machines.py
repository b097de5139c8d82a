"""The kinds of machine against the bare processor: what a compiler and a configure script take on the same root disk.

(a) is the same command with the same compiler in a chroot by bubblewrap, kept on one processor as a user-mode machine
is. The compiler builds Lua's library; the script is GNU hello's, which starts a few thousand small programs. Besides: a
layer of build-essential and debhelper, made anew in each kind of machine; starts, (c) a clone that waits under TCG; and
trivial jobs by FTP to an appliance with two slots, (d) with machines that are cloned and wait under TCG. The sources
come from Debian's archive. Run from the repository:
.venv/bin/python -m tests.bench.machines [ROUNDS [ROUNDS OF THE LAYER [ROUNDS OF STARTS [TRIVIAL JOBS]]]]
"""

import os
import shutil
import socket
import subprocess
from contextlib import closing
from functools import partial
from pathlib import Path

import msgspec

from construir_ftp.config import Config
from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.layers.apt import Archive
from construir_ftp.machine.shape import Accelerator, Shape
from construir_ftp.machine.template import Template
from construir_ftp.machine.vm import Machine
from construir_ftp.machine.waiting import Boots
from construir_ftp.pack import pack, unpack
from tests import bench
from tests.bench import Line, Row, layers, start, throughput
from tests.support import machines, umlimage
from tests.support.appliance import WARM
from tests.support.images import job_directory
from tests.support.machines import assignment

GCC = "bookworm-amd64-gcc"
PACKAGES = ("build-essential", "debhelper")
TIMEOUT_S = 3600.0
BOOT_S = 60.0
# By the name of a source package: what is done with it, and the aim for a user-mode machine against (a).
WORK = {
    "lua5.4": ("make -C src MYCFLAGS=-DLUA_USE_POSIX a", "at most 1.5 (a)"),
    "hello": ("./configure", "at most 2.5 (a)"),
}
# What is before the word is not counted.
SCRIPT = "#!/bin/sh\ntar -xf *.orig.tar.gz\ncd *-[0-9]*/\necho begins\n{} >log 2>&1 || {{ tail log; exit 1; }}\n"


def sources(place: Path) -> dict[str, Path]:
    """A job for each, with its source in it."""
    place.mkdir()
    (place / "sources.list").write_text(f"deb-src {umlimage.mirror()} bookworm main\n")
    for directory in ("state/lists/partial", "cache/archives/partial"):
        (place / directory).mkdir(parents=True)
    dirs = {"Etc::sourcelist": place / "sources.list", "Etc::sourceparts": "-", "State": place / "state"}
    dirs["Cache"] = place / "cache"
    apt = ["apt-get", "-qq", "-o", "APT::Sandbox::User=", *(f"-oDir::{key}={path}" for key, path in dirs.items())]
    subprocess.run([*apt, "update"], check=True, cwd=place)
    subprocess.run([*apt, "source", "--download-only", *WORK], check=True, cwd=place)
    jobs = {}
    for name, (command, _) in WORK.items():
        jobs[name] = job_directory(place / name, SCRIPT.format(command).encode())
        (source,) = place.glob(f"{name}_*.orig.tar.gz")
        shutil.copy(source, jobs[name])
    return jobs


def machine(images: Path, place: Path, kind: Accelerator) -> Shape:
    """A usual machine of a kind, on the root disk with the compiler."""
    base = baseimage.find(images, GCC)
    if kind == "uml":
        base = with_kernel_of(baseimage.find(images, umlimage.NAME), base, place)
    return Shape.of(Config().machine, base, kind, max_disk_bytes=2**30, read_only_disks=8)


def with_kernel_of(other: BaseImage, base: BaseImage, place: Path) -> BaseImage:
    """A base image with the user-mode kernel of another one."""
    place.mkdir()
    for name in baseimage.PARTS:
        (place / name).symlink_to(base.path / name)
    (place / baseimage.UML).symlink_to(other.uml)
    of_uml = {name: part for name, part in other.manifest.parts.items() if name.startswith(baseimage.UML)}
    # Of what kind the kernel's part is, the recipe's files tell (image.uml.is_understood).
    ingredients = base.manifest.ingredients | other.manifest.ingredients
    manifest = msgspec.structs.replace(
        base.manifest, parts=base.manifest.parts | of_uml, uml=other.manifest.uml, ingredients=ingredients
    )
    return BaseImage(place, base.name, manifest)


def in_machine_s(shape: Shape, job: Path, place: Path) -> float:
    """From the word to the machine's end."""
    task = assignment(place, job, size="64M", timeout_s=TIMEOUT_S, idle_timeout_s=TIMEOUT_S)
    with Machine.start(shape) as started:
        ending = started.run(task)
    assert ending.claims.exit_code == 0, task.output.read_text()
    assert ending.first_output is not None
    return ending.ended - ending.first_output


def natively_s(root: Path, job: Path, place: Path) -> float:
    """From the word to the end of the script."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(job, place)
    processor = str(max(os.sched_getaffinity(0)))
    pinned: list[str | Path] = ["taskset", "-c", processor]
    chroot: list[str | Path] = [
        "bwrap",
        "--bind",
        root,
        "/",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
        "--bind",
        place,
        "/job",
    ]
    argv = [*pinned, *chroot, "--chdir", "/job", "./run.sh"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"begins\n"
        taken_s = bench.timed(started.wait)
    assert started.returncode == 0
    return taken_s


def compare(work: str, jobs: dict[str, Path], kinds: dict[str, Shape], place: Path, rounds: int) -> None:
    """Print what one piece of work takes in no machine, and in each kind."""
    command, aim = WORK[work]
    rows = [Row("(a) no machine", partial(natively_s, place / "root", jobs[work], place / "native"))]
    for kind, shape in kinds.items():
        take = partial(in_machine_s, shape, jobs[work], place / "run")
        rows.append(Row(kind, take, aim if kind == "user-mode" else ""))
    bench.print_table(f"{work}: {command}", bench.take_turns(rows, rounds), "s", 1)


def compare_layers(kinds: dict[str, Shape], place: Path, rounds: int) -> None:
    """Print what making a layer takes in each kind."""
    archive = Archive(place / "archive", kinds["TCG"].base)
    archive.refresh()
    plan = archive.resolve(PACKAGES)
    archive.fetch(plan)

    def take(kind: str) -> float:
        return bench.timed(lambda: layers.make(place, kinds[kind], archive, plan))

    rows = [Row("(b) TCG", lambda: take("TCG")), Row("user-mode", lambda: take("user-mode"), "at most 1/4 (b)")]
    bench.print_table(f"a layer of {' '.join(PACKAGES)}", bench.take_turns(rows, rounds), "s", 1)


def compare_starts(kinds: dict[str, Shape], place: Path, rounds: int) -> None:
    """Print how long it is from the start of a job to the first line of its run.sh."""
    job, user_mode = job_directory(place / "first", bench.FIRST_LINE), kinds["user-mode"]
    ours, theirs = socket.socketpair()
    with ours, theirs, closing(Template.build(kinds["TCG"], BOOT_S)) as template:
        boots = Boots(user_mode, BOOT_S, ours)

        def waits_s(source: Template | Boots) -> float:
            return start.pooled_s(source, assignment(place / "run", job))

        rows = [
            Row("(c) TCG, a clone that waits", lambda: waits_s(template)),
            Row("user-mode, cold", lambda: start.cold_s(user_mode, assignment(place / "run", job)), "at most 600 ms"),
            Row("user-mode, a machine that waits", lambda: waits_s(boots), "at most 100 ms"),
        ]
        lines = bench.take_turns(rows, rounds)
    bench.print_table("to the first line of run.sh, jailed", lines)


def compare_throughput(place: Path, jobs: int) -> None:
    """Print how many trivial jobs a minute an appliance of each kind runs."""
    upload = place / "job.img.zst"
    pack.pack(job_directory(place / "trivial", b"#!/bin/sh\necho done\n"), upload, 2**20)
    configs = {
        "(d) TCG": WARM.replace("[machine]\n", '[machine]\naccelerator = "tcg"\n'),
        "user-mode": machines.config("uml", WARM),
    }
    costs = {kind: throughput.measure(place / kind[-3:], text, upload, jobs) for kind, text in configs.items()}
    lines = [
        Line(f"{kind}: {cost.boot_paths}", [cost.jobs_per_minute], "" if "TCG" in kind else "at least 2 (d)")
        for kind, cost in costs.items()
    ]
    bench.print_table("trivial jobs a minute by FTP, two slots", lines, "jobs", 1)


def main(rounds: int, layer_rounds: int, start_rounds: int, trivial_jobs: int) -> None:
    images = Config().images_path()
    with bench.workplace() as place:
        place.chmod(0o755)
        kinds = {
            "TCG": machine(images, place / "tcg-base", "tcg"),
            "user-mode": machine(images, place / "uml-base", "uml"),
        }
        unpack.unpack(kinds["TCG"].base.root, place / "root")
        jobs = sources(place / "sources")
        for work in WORK if rounds else ():
            compare(work, jobs, kinds, place, rounds)
        if layer_rounds:
            compare_layers(kinds, place, layer_rounds)
        if start_rounds:
            compare_starts(kinds, place, start_rounds)
        if trivial_jobs:
            compare_throughput(place, trivial_jobs)


if __name__ == "__main__":
    main(*bench.counts(3, 1, 20, 200))
