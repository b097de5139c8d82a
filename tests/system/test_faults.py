"""Whose fault it is when something fails between queue and done: a row of docs/results.md, a test.

What is the job's ends it once and is nobody else's business; what is the host's, test_appliance has.
"""

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from construir_ftp.jobs.job import Job
from tests.support import machines
from tests.support.appliance import CONFIG, Appliance, paused_runner
from tests.support.images import job_directory, run
from tests.support.prison import descendants
from tests.system.test_dependencies import upload

HELLO = b"#!/bin/sh\necho hello\n"
CRASHES = b"#!/bin/sh\necho running\nsleep 1000\n"
# What the runner says when it takes a fault for its own.
OURS = ("next try in", "thrown away", "taking jobs again")


def image(place: Path, name: str, toml: str, size: str, *options: str, filesystem: str = "ext4") -> Path:
    """A job's image, made by mke2fs with these options."""
    tree = job_directory(place / name, HELLO)
    (tree / "construir.toml").write_text(toml)
    file = place / f"{name}.img"
    run("mke2fs", "-q", "-F", "-t", filesystem, *options, "-d", tree, file, size)
    return file


def bigalloc(place: Path) -> Path:
    """resize2fs can't grow it, or leaves a wrong count of its free blocks."""
    return image(place, "bigalloc", 'space = "200MiB"\n', "64M", "-O", "bigalloc")


def full_tables(place: Path) -> Path:
    """It can't have so many groups as that takes."""
    return image(place, "tables", 'space = "1GiB"\n', "8M", "-b", "1024", "-O", "^resize_inode", "-g", "256")


def foreign_journal(place: Path) -> Path:
    """Its superblock names a journal elsewhere, beside the one that it has."""
    file = image(place, "journal", 'space = "100MiB"\n', "16M")
    run("debugfs", "-w", "-R", "set_super_value journal_uuid c0257f17-0000-4000-8000-000000000001", file)
    return file


def waits(place: Path) -> Path:
    """Another machine seems to have it mounted, so that mounting it takes minutes (Documentation/.../mmp.rst)."""
    options = ("-O", "mmp,^metadata_csum", "-b", "4096", "-E", "mmp_update_interval=60")
    file = image(place, "waits", "", "16M", *options)
    found = re.search(r"MMP block number: +([0-9]+)", run("dumpe2fs", "-h", file))
    assert found
    with file.open("r+b") as opened:
        opened.seek(int(found[1]) * 4096 + 4)  # mmp_seq
        opened.write((0x1234).to_bytes(4, "little"))
    return file


def crashes_the_kernel(place: Path) -> Path:
    """The kernel panics as soon as it finds that the blocks of run.sh make no sense."""
    file = image(place, "panics", "", "16M")
    run("tune2fs", "-e", "panic", file)
    run("debugfs", "-w", "-R", "set_inode_field run.sh block[0] 12345", file)
    return file


def ended_once(appliance: Appliance, file: Path) -> dict[str, Any]:
    """The result of a job that is to be the only one to notice what is wrong with it."""
    before = len(appliance.log.read_text())
    result = appliance.wait(appliance.submit(file))
    said = appliance.log.read_text()[before:]
    assert result["attempt"] == 1
    assert not [line for line in said.splitlines() if any(words in line for words in OURS)]
    return result


@pytest.mark.parametrize("make", [bigalloc, full_tables])
def test_file_system_that_can_not_grow_fails_its_job_with_the_words_of_the_tool(
    shared_appliance: Appliance, tmp_path: Path, make: Any
) -> None:
    result = ended_once(shared_appliance, make(tmp_path))
    if make is bigalloc and result["status"] == "success":
        (tmp_path / "grown.img").write_bytes(shared_appliance.fetch(result["id"], result["image"]))
        run("e2fsck", "-fn", tmp_path / "grown.img")
        told = run("dumpe2fs", "-h", tmp_path / "grown.img")
        assert int(told.partition("Free blocks:")[2].split()[0]) * 1024 >= 199 * 2**20
        return
    assert result["status"] == "failed", result
    assert re.search(r"space = \d+ MiB: .*(resize2fs|superblock)", result["reason"]), result


def test_image_that_is_not_mounted_in_time_fails_its_job(tmp_path: Path) -> None:
    config = CONFIG.replace('boot_timeout = "60s"', 'boot_timeout = "60s"\nmount_timeout = "3s"')
    with Appliance(tmp_path, machines.light(config)).running() as impatient:
        result = ended_once(impatient, waits(tmp_path))
    assert (result["status"], result["exit_code"]) == ("failed", None)
    assert "the image was not mounted within 3 s" in result["reason"]


# What an emulated kernel's panic means, test_environment has, and what becomes of such jobs test_jobs.
@pytest.mark.parametrize("make", [foreign_journal, crashes_the_kernel])
def test_image_that_confuses_kernel_or_tools_ends_its_job_once(
    shared_appliance: Appliance, tmp_path: Path, make: Any
) -> None:
    assert ended_once(shared_appliance, make(tmp_path))["status"] in ("failed", "no-result", "success")


def test_machine_that_crashes_twice_is_the_jobs_doing_where_an_empty_one_comes_up(
    usual_appliance: Appliance, tmp_path: Path
) -> None:
    """User-mode machines end as their guests like, so that nobody tries an empty one."""
    tree = job_directory(tmp_path / "crashes", CRASHES)
    file = tmp_path / "crashes.img"
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, file, "8M")
    before = len(usual_appliance.log.read_text())
    job = usual_appliance.submit(file)
    for _ in range(2):
        usual_appliance.wait_until_running(job)
        kill_machine_of(usual_appliance, job)
    result = usual_appliance.wait(job)
    assert (result["status"], result["attempt"]) == ("no-result", 1)
    assert "twice" in result["reason"]
    said = usual_appliance.log.read_text()[before:]
    assert "next try in" not in said
    assert usual_appliance.wait(usual_appliance.submit(image(tmp_path, "after", "", "8M")))["status"] == "success"


def kill_machine_of(appliance: Appliance, job: str) -> None:
    """Kill QEMU, and return when the job has no output any more, or has ended."""
    place = appliance.place(job)
    for pid in descendants(appliance.parts()["runner"]):
        if Path(f"/proc/{pid}/comm").read_text().startswith("qemu"):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while (place / "output.log").exists() and (place / "output.log").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_upload_that_was_damaged_on_the_way_fails_its_job_after_one_more_try(
    shared_appliance: Appliance, tmp_path: Path
) -> None:
    before = len(shared_appliance.log.read_text())
    with paused_runner(shared_appliance):
        job = shared_appliance.submit(upload(tmp_path / "job", "true", ""))
        with (shared_appliance.spool / "queue" / job / "upload").open("r+b") as file:
            file.truncate(100)
    result = shared_appliance.wait(job)
    assert (result["status"], result["attempt"]) == ("failed", 2), result
    assert "it could not be run, twice: " in result["reason"]
    assert "next try in" not in shared_appliance.log.read_text()[before:]


def test_killed_job_leaves_an_image_that_can_be_sent_again(shared_appliance: Appliance, tmp_path: Path) -> None:
    tree = job_directory(tmp_path / "killed", b"#!/bin/sh\necho data >data; sync; echo running; sleep 1000\n")
    file = tmp_path / "killed.img"
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, file, "16M")
    job = shared_appliance.submit(file)
    shared_appliance.wait_until_running(job)
    with shared_appliance.session() as ftp:
        ftp.rmd(f"/running/{job}")
    assert shared_appliance.wait(job)["status"] == "cancelled"
    left = Job(shared_appliance.spool / "done" / job).path / "killed.img"
    assert "clean" in run("dumpe2fs", "-h", left)
    assert "needs_recovery" not in run("dumpe2fs", "-h", left)


# Says what init says, by init's own descriptor (pidfd_getfd(2)), and has the kernel switch off at once.
LIES = b"""#!/bin/sh
echo data >data
perl -e 'my $init = syscall 434, 1, 0;
    for my $number (3 .. 30) {
        my $copy = syscall 438, $init, $number, 0;
        next if $copy < 0;
        open my $handle, ">&=", $copy or next;
        syswrite $handle, "exit 0\nclean\n";
    }'
sleep 0.5
echo o >/proc/sysrq-trigger
sleep 60
"""


def test_guest_that_says_clean_while_its_file_system_is_in_use_is_no_success(
    shared_appliance: Appliance, tmp_path: Path
) -> None:
    tree = job_directory(tmp_path / "lies", LIES)
    file = tmp_path / "lies.img"
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, file, "16M")
    result = ended_once(shared_appliance, file)
    assert (result["status"], result["claimed"]["clean"]) == ("no-result", True), result
    assert "in use until the machine ended" in result["reason"]


def test_file_system_whose_construir_toml_nobody_reads_fails_its_job(tmp_path: Path) -> None:
    tree = job_directory(tmp_path / "wishes", HELLO)
    (tree / "construir.toml").write_text('timeout = "5s"\n')
    file = tmp_path / "wishes.img"
    run("mkfs.btrfs", "-q", "--rootdir", tree, "--shrink", file)
    config = CONFIG + '[gate]\nfilesystems = ["ext4", "btrfs"]\n'
    with Appliance(tmp_path, machines.light(config)).running() as appliance:
        result = appliance.wait(appliance.submit(file))
    assert result["status"] == "failed"
    assert "construir.toml is not read in btrfs" in result["reason"]
