"""A base image boots by itself, from its own GRUB, where there is any hypervisor; the same one makes the same disk."""

import json
import subprocess
from pathlib import Path

import pytest

from construir_ftp.image import baseimage, bootdisk
from construir_ftp.image.baseimage import BaseImage
from tests.support import selfboot
from tests.support.images import run
from tests.support.selfboot import booted

RUN_SH = """#!/bin/sh
echo "hello from $(uname -s)"
echo kept >kept
echo forgotten >/usr/forgotten
exit 3
"""


@pytest.fixture(scope="session")
def disk(images: Path, base: BaseImage) -> Path:
    """The disk of the default base image; made once, and kept with it."""
    return bootdisk.ensure(images, base).path / baseimage.DISK


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job's disk."""
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "run.sh").write_text(RUN_SH)
    (tmp_path / "job" / "run.sh").chmod(0o755)
    run("mke2fs", "-q", "-t", "ext2", "-d", tmp_path / "job", tmp_path / "job.img", "8M")
    return tmp_path / "job.img"


def content(job: Path, name: str) -> str:
    return run("debugfs", "-R", f"cat {name}", job)


def check_result(job: Path) -> None:
    assert content(job, "construir.log") == "hello from Linux\n"
    assert content(job, "construir.exit") == "3\n"
    assert content(job, "kept") == "kept\n"
    assert subprocess.run(["e2fsck", "-fn", job], capture_output=True, check=False).returncode == 0


def written_bytes(over: Path) -> int:
    """How much a machine has written to a disk that lies over another one."""
    return sum(
        part["length"] for part in json.loads(run("qemu-img", "map", "--output=json", over)) if not part["depth"]
    )


def test_disk_boots_from_its_own_grub_and_runs_the_job_on_the_second_disk(
    disk: Path, job: Path, tmp_path: Path
) -> None:
    over = selfboot.over(disk, tmp_path)
    with booted([(over, "qcow2"), (job, "raw")]) as machine:
        machine.expect("executed automatically in 2s")
        machine.expect("Booting `Job'")
        machine.wait()
    assert "hello from Linux" in machine.said
    assert "construir: exit 3" in machine.said
    check_result(job)
    assert written_bytes(over) == 0


def test_debian_of_the_menu_is_a_login_that_keeps_what_is_changed(disk: Path, job: Path, tmp_path: Path) -> None:
    over = selfboot.over(disk, tmp_path)
    with booted([(over, "qcow2"), (job, "raw")]) as machine:
        machine.choose_debian()
        machine.expect("login: ")
        machine.type("root\r")
        machine.expect("Password: ")
        machine.type("vagrant\r")
        machine.expect("# ")
        machine.type("cat /job/run.sh >/root/changed; logout\r")
        machine.expect("login: ")
        machine.type("root\r")
        machine.expect("Password: ")
        machine.type("vagrant\r")
        machine.expect("# ")
        machine.type("poweroff\r")
        machine.wait()
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", over, tmp_path / "after.img")
    assert selfboot.file_on_root(tmp_path / "after.img", "/root/changed") == RUN_SH.encode()
    assert "construir.log" not in run("debugfs", "-R", "ls", job)


@pytest.mark.slow("it looks for a job for a while")
def test_machine_without_a_job_says_so_and_is_switched_off(
    disk: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with booted([(selfboot.over(disk, tmp_path), "qcow2")]) as machine:
        machine.expect("construir: error the machine has no disk for the job")
        machine.wait()


@pytest.mark.slow("a boot for each bus takes a minute")
@pytest.mark.parametrize(("bus", "uefi"), [("ide", False), ("nvme", False), ("scsi", True), ("virtio", True)])
def test_disk_runs_a_job_on_buses_of_other_hypervisors_and_by_uefi(
    disk: Path, job: Path, tmp_path: Path, bus: str, uefi: bool, request: pytest.FixtureRequest
) -> None:
    with booted([(selfboot.over(disk, tmp_path), "qcow2"), (job, "raw")], bus=bus, uefi=uefi) as machine:
        machine.wait()
    check_result(job)


def test_same_base_image_makes_the_same_disk(disk: Path, base: BaseImage, tmp_path: Path) -> None:
    bootdisk.make(base, tmp_path / "disk.img")
    fresh = baseimage.measure(tmp_path / "disk.img")
    if fresh != baseimage.measure(disk):  # another GRUB made that one, perhaps
        (tmp_path / "again").mkdir()
        bootdisk.make(base, tmp_path / "again" / "disk.img")
        assert baseimage.measure(tmp_path / "again" / "disk.img") == fresh


def test_disk_is_proved_with_its_image_and_no_part_of_what_the_image_is(
    disk: Path, images: Path, base: BaseImage
) -> None:
    found = baseimage.find(images, base.name)
    assert found.manifest.disk is not None
    assert found.manifest.digest() == base.manifest.digest()
    run("cmp", f"--bytes={2**20}", f"--ignore-initial={bootdisk.ROOT_AT_BYTES}:0", disk, base.root)
