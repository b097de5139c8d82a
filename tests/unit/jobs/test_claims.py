"""Promises of claims: of many nodes one has a job, and whoever has lost its jobs can do nothing more to them."""

import os
import threading
from pathlib import Path

import pytest

from construir_ftp.jobs import cancellation
from construir_ftp.jobs.job import OPERATOR
from construir_ftp.jobs.spool import Job, Spool
from tests.support.records import send
from tests.unit.jobs.test_spool import RESULT, files, ids, run


@pytest.fixture
def front(tmp_path: Path) -> Spool:
    return Spool.prepare(tmp_path / "spool")


@pytest.fixture
def node(front: Spool) -> Spool:
    return Spool(front.path, "far")


def taken(by: Spool) -> Job:
    job = by.take()
    assert job is not None
    return job


def holding_of(job: Job) -> Path:
    return job.path.parent


def test_each_of_many_jobs_is_taken_by_one_of_many_nodes(front: Spool) -> None:
    sent = [send(front, after_s=number).id for number in range(60)]
    held: list[str] = []

    def take_all(node: Spool) -> None:
        while (job := node.take()) is not None:
            held.append(job.id)

    threads = [threading.Thread(target=take_all, args=(Spool(front.path, f"node-{number}"),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(held) == sent == ids(front, "running")
    assert ids(front, "queue") == []


def test_node_finds_what_its_own_earlier_start_held_and_nothing_of_others(front: Spool, node: Spool) -> None:
    send(front)
    send(front, after_s=1)
    first, second = taken(node), taken(front)
    again = Spool(front.path, "far")
    assert [job.id for job in again.recover()] == [first.id]
    assert ids(front, "queue") == [first.id]
    assert ids(front, "running") == [second.id]
    assert not holding_of(first).exists()
    assert holding_of(second).exists()


def test_jobs_that_an_older_version_left_in_running_are_found(front: Spool) -> None:
    old = send(front)
    old.path.rename(front.state("running") / old.id)
    assert ids(front, "running") == []
    assert [job.id for job in front.recover()] == [old.id]
    assert ids(front, "queue") == [old.id]


def test_what_was_taken_from_a_node_it_can_not_publish_nor_give_back_nor_claim_more(front: Spool, node: Spool) -> None:
    send(front)
    send(front, after_s=1)
    job = taken(node)
    run(job)
    assert not node.claims.are_lost()
    assert [back.id for back in front.take_back(holding_of(job))] == [job.id]
    assert node.claims.are_lost()
    for attempt in (lambda: node.finish(job, RESULT), lambda: node.requeue(job), node.take):
        with pytest.raises(FileNotFoundError):
            attempt()
    assert len(ids(front, "queue")) == 2
    again = taken(front)
    assert again.id == job.id
    assert again.attempts() == 1, "the node had begun one"
    assert files(again) == {"upload", "job.json", "attempts"}


def test_result_that_a_node_had_written_is_published_and_not_made_again(front: Spool, node: Spool) -> None:
    send(front)
    job = taken(node)
    run(job)
    job.result.write_bytes(RESULT)
    assert front.take_back(holding_of(job)) == []
    assert ids(front, "done") == [job.id]
    assert ids(front, "queue") == []


def test_what_a_node_writes_into_a_directory_that_it_holds_open_comes_to_no_other_run(
    front: Spool, node: Spool
) -> None:
    send(front)
    job = taken(node)
    job.count_attempt()
    held = os.open(job.path, os.O_PATH | os.O_DIRECTORY)
    front.take_back(holding_of(job))
    again = taken(front)
    try:
        late = os.open("result.json", os.O_CREAT | os.O_WRONLY, dir_fd=held)
        os.close(late)
    except FileNotFoundError:  # removed by now
        pass
    finally:
        os.close(held)
    assert not again.result.exists()
    assert again.upload.read_bytes()


def test_wish_for_the_end_of_a_job_outlives_that_it_is_taken_from_its_node(
    front: Spool, node: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(front)
    job = taken(node)
    mark = cancellation._mark

    def late(spool: Path, directory: int, whose: str) -> None:
        if holding_of(job).exists():
            front.take_back(holding_of(job))
        mark(spool, directory, whose)

    monkeypatch.setattr(cancellation, "_mark", late)
    front.cancel(job.id, OPERATOR)
    assert taken(front).cancelled_by() == OPERATOR
