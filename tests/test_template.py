"""Clones: they are quick to have, no two are alike, and a template that is wrong costs no job."""

import errno
import hashlib
import io
import os
import socket
import statistics
from pathlib import Path

import pytest

from construir_ftp import gate, pack
from construir_ftp.config import Config
from construir_ftp.court import Court
from construir_ftp.image import BaseImage
from construir_ftp.machine import accelerator
from construir_ftp.machine.qemu import Shape
from construir_ftp.machine.template import Template, Templates
from construir_ftp.machine.vm import Assignment, Ending
from construir_ftp.offer import Offer
from construir_ftp.runner.spare import Spare
from construir_ftp.runner.worker import Published, Worker
from construir_ftp.spool import Spool
from tests.appliance import WARM, Appliance
from tests.images import job_directory
from tests.machines import JOBS, assignment

CLONES = 20
BLOCK = 2**16
IDENTITY = b"""#!/bin/sh
date +%s.%N
cat /proc/sys/kernel/random/boot_id /etc/machine-id
uuidgen --random
head -c 16 /dev/urandom | od -An -tx1
hostname
"""


def run_clone(template: Template, task: Assignment, pooled: bool = False) -> Ending:
    with template.waiting() if pooled else template.clone() as machine:
        return machine.run(task)


@pytest.mark.parametrize("pooled", [False, True], ids=["warm", "pooled"])
def test_clone_runs_a_job_whatever_the_size_of_its_disk(template: Template, tmp_path: Path, pooled: bool) -> None:
    for number, size in enumerate(["1M", "64M"]):
        ending = run_clone(template, assignment(tmp_path / f"job-{number}", JOBS / "hello", size=size), pooled)
        assert (ending.report.exit_code, ending.report.clean) == (0, True)
        assert ending.boot_path == ("pooled" if pooled else "warm")


def test_no_two_clones_are_alike_and_all_know_the_time(template: Template, tmp_path: Path) -> None:
    """Whether they come straight from the template, or have waited."""
    job = job_directory(tmp_path / "identity", IDENTITY)
    seen, late_s = [], []
    for number in range(CLONES):
        task = assignment(tmp_path / f"clone-{number}", job)
        ending = run_clone(template, task, pooled=number % 2 == 1)
        said, *identity = task.output.read_text().split("\n")[:-1]
        assert ending.first_output is not None
        late_s.append(abs(ending.first_output - float(said)))
        seen.append(identity)
        assert identity[-1] == f"clone-{number}"
    for values in zip(*seen, strict=True):
        assert len(set(values)) == CLONES, values
    # What is measured is the clock's error and the time that the line took to get here.
    assert statistics.median(late_s) < 0.05


@pytest.fixture(scope="module")
def before(template: Template) -> list[str]:
    """What the template is made of, as it has to stay."""
    return digests(template)


@pytest.mark.parametrize("job", ["wipesroot", "corrupts", "reboots", "powersoff"])
def test_hostile_clone_changes_nothing_for_the_next(
    template: Template, before: list[str], tmp_path: Path, job: str
) -> None:
    run_clone(template, assignment(tmp_path / job, JOBS / job))
    assert digests(template) == before
    assert run_clone(template, assignment(tmp_path / "after", JOBS / "hello")).report.exit_code == 0


def digests(template: Template) -> list[str]:
    found = []
    for descriptor in (template._ram, template._state, template._root):
        with os.fdopen(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY), "rb", buffering=0) as file:
            found.append(digest(file))
    return found


def digest(file: io.FileIO) -> str:
    """Of what is in a file, and where, but for zeros: to read two gigabytes of holes takes seconds."""
    found, at, end = hashlib.sha256(), 0, file.seek(0, os.SEEK_END)
    while at < end:
        try:
            at = file.seek(at, os.SEEK_DATA) // BLOCK * BLOCK
        except OSError as error:
            assert error.errno == errno.ENXIO, "only a hole is left"
            break
        file.seek(at)
        block = file.read(BLOCK)
        if block.count(0) < len(block):  # a hole in memory that was read is one no longer
            found.update(f"{at}:".encode() + block)
        at += BLOCK
    return f"{found.hexdigest()} {end}"


def test_sealed_template_can_be_written_by_nobody(template: Template) -> None:
    with pytest.raises(PermissionError):
        os.pwrite(template._ram, b"poison", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(template._state, 0)


def test_job_boots_cold_when_its_template_is_wrong(shape: Shape, images: Path, base: BaseImage, tmp_path: Path) -> None:
    templates = Templates(60)
    spool = Spool.prepare(tmp_path / "spool")
    offer = Offer.of(spool, Config())
    worker = Worker(
        spool=spool,
        offer=offer,
        spare=Spare(0),
        base=base,
        machine=Config().machine,
        accelerator=accelerator.choose(Config().machine, images, base),
        max_disk_bytes=2**34,
        templates=templates,
    )
    # Never booted: there is neither memory nor state in it.
    templates._built[worker.shape().key()] = Template(worker.shape())
    incoming = worker.spool.receive()
    pack.pack(JOBS / "hello", incoming.upload, 2**20)
    with Court(Config().gate) as court:
        gate.admit(worker.spool, incoming, "hello.img.zst", "alice", court, offer)
    job = worker.spool.take()
    assert job is not None
    stop, other_end = socket.socketpair()
    with stop, other_end:
        outcome = worker.run(job, stop, lambda _seconds: True)
    templates.close()
    assert isinstance(outcome, Published)
    assert (outcome.result.status, outcome.result.boot_path, outcome.result.attempt) == ("success", "cold", 1)


def test_appliance_keeps_machines_waiting_and_says_which_way_a_job_went(
    base: BaseImage, hello: Path, tmp_path: Path
) -> None:
    with Appliance(tmp_path, WARM).running() as appliance:
        appliance.wait_until_logged(f"template of {base.name} built")
        ways: list[str] = []
        while "pooled" not in ways:  # until the first machines wait, jobs are quicker
            assert len(ways) < 20
            result = appliance.wait(appliance.submit(hello))
            assert result["status"] == "success"
            ways.append(result["boot_path"])
    assert set(ways) <= {"cold", "warm", "pooled"}
