"""Many contributors, one appliance: who sends much delays others little."""

import ftplib
import os
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from construir_ftp.ftp.users import Users
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.pack import pack
from tests.support import machines
from tests.support.appliance import CONFIG, PASSWORD, WARM, Appliance, paused_runner, send
from tests.support.places import JOBS
from tests.system.test_dependencies import upload

MANY, VERY_MANY = 6, 1000


@pytest.fixture
def one_slot(tmp_path: Path, base: BaseImage) -> Iterator[Appliance]:
    """An appliance that runs one job at a time, with two contributors."""
    appliance = Appliance(tmp_path, machines.light(WARM.replace("slots = 2", "slots = 1")))
    appliance.start()
    Users(appliance.spool / "users.toml").add("bob", PASSWORD)
    yield appliance
    appliance.stop()


def test_many_jobs_of_one_delay_the_single_job_of_another_by_at_most_one(
    one_slot: Appliance, hello: Path, request: pytest.FixtureRequest
) -> None:
    with paused_runner(one_slot), one_slot.session() as alice:
        for _ in range(VERY_MANY if request.config.getoption("--all") else MANY):
            send(alice, hello)
        single = one_slot.submit(hello, contributor="bob")
    result = one_slot.wait(single)
    assert result["status"] == "success"
    done = [one_slot.wait(job)["started"] for job in one_slot.states()["done"]]
    assert sorted(done, key=datetime.fromisoformat).index(result["started"]) == 1


@pytest.fixture
def small_spool(tmp_path: Path) -> Iterator[Appliance]:
    """An appliance with two slots and 64 MiB of disk, 8 of which are kept free."""
    config = CONFIG.replace('min_free = "64MiB"', 'min_free = "8MiB"')
    appliance = Appliance(tmp_path, machines.light(config))
    appliance.spool.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", appliance.spool], check=False).returncode
    ):
        pytest.skip("mounting a tmpfs needs root")
    try:
        appliance.start()
        yield appliance
        appliance.stop()
    finally:
        subprocess.run(["umount", "-l", appliance.spool], check=True)


def large_job(tmp_path: Path, name: str) -> Path:
    """A job whose image is small packed, and has 16 MiB unpacked."""
    upload = tmp_path / f"{name}.img.zst"
    pack.pack(JOBS / name, upload, 15 * 2**20)
    return upload


@pytest.mark.usefixtures("base")
def test_job_waits_for_room_beside_another_and_uploads_leave_both_theirs(
    small_spool: Appliance, tmp_path: Path
) -> None:
    hangs, hello = large_job(tmp_path, "hangs"), large_job(tmp_path, "hello")
    with paused_runner(small_spool):
        first, second = small_spool.submit(hangs), small_spool.submit(hello)
    deadline = time.monotonic() + 60
    while not (small_spool.place(first) / "output.log").exists():
        assert time.monotonic() < deadline, small_spool.log.read_text()
        time.sleep(0.05)
    assert small_spool.states()["queue"] == [second], "there is a slot, and no room"
    assert "there is not enough room on the disk for it" in (small_spool.spool / "nodes/local/runner.json").read_text()
    with pytest.raises(ftplib.error_temp, match="452 Refused: no room"):
        small_spool.submit(hello)
    with small_spool.session() as ftp:
        ftp.rmd(f"/running/{first}")
    assert small_spool.wait(first)["status"] == "cancelled"
    result = small_spool.wait(second)
    assert result["status"] == "success"
    assert result["started"] > small_spool.wait(first)["ended"]


@pytest.mark.usefixtures("base")
def test_results_that_find_no_room_on_an_idle_disk_end_their_job_and_no_others(
    small_spool: Appliance, tmp_path: Path
) -> None:
    wide = upload(tmp_path / "wide", "yes | head -c 14500000 >data", "", room_bytes=15 * 2**20)
    jobs = []
    for _ in range(5):
        jobs.append(small_spool.submit(wide))
        assert small_spool.wait(jobs[-1])["status"] == "success"
    wants = upload(tmp_path / "wants", "true", f"[dependencies]\nresults = {jobs}")
    result = small_spool.wait(small_spool.submit(wants))
    assert result["status"] == "dependency-failed"
    assert "no room" in result["reason"]
    assert small_spool.wait(small_spool.submit(upload(tmp_path / "plain", "true", "")))["status"] == "success"
