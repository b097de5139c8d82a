"""Many contributors, one appliance: who sends much delays others little."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from construir_ftp import pack
from construir_ftp.image import BaseImage
from construir_ftp.users import Users
from tests.appliance import CONFIG, PASSWORD, Appliance

JOBS = Path(__file__).parent / "jobs"
MANY = 6


@pytest.fixture
def one_slot(tmp_path: Path, base: BaseImage) -> Iterator[Appliance]:
    """An appliance that runs one job at a time, with two contributors."""
    appliance = Appliance(tmp_path, CONFIG.replace("slots = 2", "slots = 1"))
    appliance.start()
    Users(appliance.spool / "users.toml").add("bob", PASSWORD)
    yield appliance
    appliance.stop()


@contextmanager
def paused_runner(appliance: Appliance) -> Iterator[None]:
    """Within, no job is taken."""
    runner = appliance.parts()["runner"]
    os.kill(runner, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(runner, signal.SIGCONT)


def test_many_jobs_of_one_delay_the_single_job_of_another_by_at_most_one(one_slot: Appliance, tmp_path: Path) -> None:
    hello = tmp_path / "hello.img.zst"
    pack.pack(JOBS / "hello", hello, 2**20)
    with paused_runner(one_slot):
        many = [one_slot.submit(hello) for _ in range(MANY)]
        single = one_slot.submit(hello, contributor="bob")
    results = {job: one_slot.wait(job) for job in (*many, single)}
    assert {result["status"] for result in results.values()} == {"success"}
    started = sorted(results, key=lambda job: datetime.fromisoformat(results[job]["started"]))
    assert started.index(single) == 1
