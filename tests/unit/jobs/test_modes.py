"""Until it is done, no other login of the host may look into a job; a result is for all. No umask changes that."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from construir_ftp.jobs.spool import Job, Spool
from tests.support.records import send
from tests.unit.jobs.test_spool import RESULT


@pytest.fixture(params=[0o000, 0o022, 0o027, 0o077])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Spool]:
    before = os.umask(request.param)
    try:
        yield Spool.prepare(tmp_path / "spool")
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def run_a_bit(job: Job) -> None:
    job.count_attempt()
    job.disk.write_bytes(b"disk")
    (job.path / "output.log").write_bytes(b"hello")
    (job.path / "artifacts/out").mkdir(parents=True)
    (job.path / "artifacts/out/x.deb").write_bytes(b"x")


def is_for_us_alone(job: Job) -> bool:
    return mode(job.path) == 0o700


def test_a_job_is_for_us_alone_until_it_is_done_and_then_for_all(place: Spool) -> None:
    send(place)
    [job] = place.jobs("queue")
    assert is_for_us_alone(job)
    assert {mode(job.upload), mode(job.path / "job.json")} == {0o600}
    place.cancel(job.id)
    with place.lock():
        taken = place.take()
        assert taken is not None
        run_a_bit(taken)
        assert is_for_us_alone(taken)
        requeued = place.requeue(taken)
        assert is_for_us_alone(requeued)
        taken = place.take()
        assert taken is not None
        run_a_bit(taken)
        done = place.finish(taken, RESULT)
    assert mode(done.path) == mode(done.path.parent) == 0o755
    for path in done.path.rglob("*"):
        assert mode(path) == (0o755 if path.is_dir() else 0o644), path


def test_a_crash_between_publishing_and_done_leaves_nothing_open(place: Spool) -> None:
    send(place)
    with place.lock():
        taken = place.take()
        assert taken is not None
        run_a_bit(taken)
        taken.path.chmod(0o755)  # as of an older version, too
        [again] = place.recover()
    assert is_for_us_alone(again)


def test_what_is_deleted_is_for_us_alone(place: Spool) -> None:
    job = place.receive()
    assert is_for_us_alone(job)
    job.upload.write_bytes(b"x")
    job.path.rename(place.state("trash") / job.id)
    assert mode(place.state("trash") / job.id) == 0o700


def test_jobs_that_an_older_version_left_open_are_closed(place: Spool) -> None:
    send(place)
    [job] = place.jobs("queue")
    job.path.chmod(0o755)
    with place.lock():
        place.recover()
    assert is_for_us_alone(job)
