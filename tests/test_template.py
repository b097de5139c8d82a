"""Clones: they are quick to have, no two are alike, and a template that is wrong costs no job."""

import hashlib
import os
import socket
import statistics
import time
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
from tests.appliance import Appliance
from tests.images import job_directory
from tests.machines import JOBS, assignment

CLONES = 20
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


@pytest.mark.parametrize("pooled", [False, True], ids=["warm", "pooled"])
def test_no_two_clones_are_alike_and_all_know_the_time(template: Template, tmp_path: Path, pooled: bool) -> None:
    job = job_directory(tmp_path / "identity", IDENTITY)
    seen, late_s = [], []
    for number in range(CLONES):
        task = assignment(tmp_path / f"clone-{number}", job)
        ending = run_clone(template, task, pooled)
        said, *identity = task.output.read_text().split("\n")[:-1]
        assert ending.first_output is not None
        late_s.append(abs(ending.first_output - float(said)))
        seen.append(identity)
        assert identity[-1] == f"clone-{number}"
    for values in zip(*seen, strict=True):
        assert len(set(values)) == CLONES, values
    # What is measured is the clock's error and the time that the line took to get here.
    assert statistics.median(late_s) < 0.05


@pytest.mark.parametrize("job", ["wipesroot", "corrupts", "reboots", "powersoff"])
def test_hostile_clone_changes_nothing_for_the_next(template: Template, tmp_path: Path, job: str) -> None:
    before = digests(template)
    run_clone(template, assignment(tmp_path / job, JOBS / job))
    assert digests(template) == before
    assert run_clone(template, assignment(tmp_path / "after", JOBS / "hello")).report.exit_code == 0


def digests(template: Template) -> list[str]:
    found = []
    for descriptor in (template._ram, template._state, template._root):
        with os.fdopen(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY), "rb") as file:
            found.append(hashlib.file_digest(file, "sha256").hexdigest())
    return found


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


def test_appliance_keeps_machines_waiting_and_says_which_way_a_job_went(appliance: Appliance, tmp_path: Path) -> None:
    upload = tmp_path / "hello.img.zst"
    pack.pack(JOBS / "hello", upload, 2**20)
    deadline = time.monotonic() + 60
    while "template of" not in appliance.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(5)
    result = appliance.wait(appliance.submit(upload))
    assert (result["status"], result["boot_path"]) == ("success", "pooled")
