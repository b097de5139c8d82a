"""A cancelled job: whatever it was doing, it ends, and has a result directory like any other."""

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs import inquiry
from construir_ftp.jobs.spool import Spool
from tests.support import machines
from tests.support.appliance import CONFIG, Appliance, construir


@pytest.fixture
def one_slot(tmp_path: Path, base: BaseImage) -> Iterator[Appliance]:
    """An appliance that runs one job at a time, for as long as the job likes."""
    appliance = Appliance(tmp_path, machines.light(CONFIG.replace("slots = 2", "slots = 1")))
    appliance.start()
    yield appliance
    appliance.stop()


def test_waiting_and_running_jobs_are_cancelled_by_deleting_them_and_the_next_one_runs(
    one_slot: Appliance, hangs: Path
) -> None:
    spool = Spool(one_slot.spool)
    running, waiting, following = (one_slot.submit(hangs) for _ in range(3))
    one_slot.wait_until_running(running)
    with one_slot.session() as ftp:
        assert ftp.delete(f"/queue/{waiting}").startswith(f"250 Job {waiting} is cancelled")
    result = one_slot.wait(waiting)
    assert (result["status"], result["image"], result["attempt"]) == ("cancelled", None, 0)
    assert result["reason"] == "cancelled by its contributor before it ran"
    told = inquiry.job(spool, running)
    assert told is not None
    assert told.state == "running", "the one before it was left alone"
    with one_slot.session() as ftp:
        assert ftp.delete(f"/running/{running}").startswith(f"250 Job {running} is cancelled")
    result = one_slot.wait(running)
    assert (result["status"], result["image"], result["attempt"]) == ("cancelled", "hangs.img.zst", 1)
    assert one_slot.fetch(running, "output.log") == b"hanging\n"
    assert sorted(path.name for path in (one_slot.spool / "done" / running).iterdir()) == [
        "SHA256SUMS",
        "SHA256SUMS.sig",
        "console.log",
        "construir.toml",
        "hangs.img.zst",
        "job.json",
        "output.log",
        "provenance.intoto.jsonl",
        "result.json",
    ]
    one_slot.wait_until_running(following)


def test_job_is_cancelled_although_no_machine_can_be_started(tmp_path: Path, hangs: Path, base: BaseImage) -> None:
    appliance = Appliance(tmp_path, CONFIG.replace("[machine]", '[machine]\nqemu = "qemu-system-nothing"'))
    appliance.start()
    try:
        cancelled, waiting = appliance.submit(hangs), appliance.submit(hangs)
        Spool(appliance.spool).cancel(cancelled)
        assert appliance.wait(cancelled)["status"] == "cancelled"
        told = inquiry.job(Spool(appliance.spool), waiting)
        assert told is not None
        assert (told.state, told.why) == ("waiting", "no job is taken at the moment: no machine can be started")
    finally:
        appliance.stop()


def test_job_cancelled_while_the_appliance_is_down_is_not_run_again(one_slot: Appliance, hangs: Path) -> None:
    running = one_slot.submit(hangs)
    one_slot.wait_until_running(running)
    assert one_slot.stop() == 0
    assert one_slot.states()["queue"] == [running]
    Spool(one_slot.spool).cancel(running)
    one_slot.start()
    result = one_slot.wait(running)
    assert (result["status"], result["reason"]) == ("cancelled", "cancelled by its contributor before it ran")


def test_status_of_a_working_appliance_names_slots_accelerator_and_jobs(one_slot: Appliance, hangs: Path) -> None:
    running, waiting = one_slot.submit(hangs), one_slot.submit(hangs)
    one_slot.wait_until_running(running)
    deadline = time.monotonic() + 30
    while (told := inquiry.runner(Spool(one_slot.spool))) is None or not told.busy:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (told.slots, [slot.job for slot in told.busy], told.pause) == (1, [running], "")
    assert told.accelerator in ("kvm", "tcg", "uml")
    said = msgspec.json.decode(construir("status", "--json", f"--spool={one_slot.spool}", check=True).stdout)
    assert (said["queue"], said["why"]) == ([waiting], "every machine is busy (1 of 1)")
