"""Promises of the front: who is silent for the lease loses their jobs, and nobody else does."""

from pathlib import Path

import pytest

from construir_ftp.errors import ConstruirError
from construir_ftp.jobs import nodes
from construir_ftp.jobs.nodes import Pulse
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.runner.front import Front
from tests.support.records import send
from tests.unit.jobs.test_spool import ids

LEASE_S = 60.0


@pytest.fixture
def front(spool: Spool) -> Front:
    return Front(spool.path, LEASE_S)


@pytest.fixture
def far(spool: Spool) -> Spool:
    return Spool(spool.path, "far")


def takes(node: Spool) -> Job:
    send(node)
    job = node.take()
    assert job is not None
    return job


def beat(node: Spool, number: int) -> None:
    nodes.beat(node.path, "far", Pulse(holding=node.claims.path.name, count=number))


def living(spool: Spool) -> list[str]:
    with spool.lock():
        return nodes.living(spool.path)


def test_who_says_something_in_every_lease_keeps_its_jobs(front: Front, far: Spool) -> None:
    job = takes(far)
    for number in range(10):
        beat(far, number)
        front.look(number * LEASE_S * 0.45)
    assert ids(far, "running") == [job.id]
    assert living(far) == ["local", "far"]


def test_who_is_silent_for_the_lease_loses_them(front: Front, far: Spool) -> None:
    job = takes(far)
    for now_s, number in ((0.0, 1), (20.0, 2), (40.0, 2), (60.0, 2), (79.0, 2)):
        beat(far, number)
        front.look(now_s)
    assert ids(far, "running") == [job.id]
    front.look(81.0)
    assert ids(far, "queue") == [job.id]
    assert living(far) == ["local"]
    assert far.claims.are_lost()


def test_who_never_said_anything_has_a_lease_too(front: Front, far: Spool) -> None:
    job = takes(far)
    for now_s in (100.0, 120.0, 140.0, 159.0):
        front.look(now_s)
    assert ids(far, "running") == [job.id]
    front.look(161.0)
    assert ids(far, "queue") == [job.id]


def test_front_that_stood_still_itself_gives_everybody_a_whole_lease(front: Front, far: Spool) -> None:
    job = takes(far)
    beat(far, 1)
    front.look(0.0)
    front.look(1000.0)
    front.look(1020.0)
    front.look(1040.0)
    assert ids(far, "running") == [job.id]
    front.look(1061.0)
    assert ids(far, "queue") == [job.id]


def test_what_a_front_had_taken_when_it_was_killed_the_next_one_gives_back(
    front: Front, far: Spool, spool: Spool
) -> None:
    job = takes(far)
    dead = Spool(spool.path, nodes.FRONT)
    dead.claims.begin()
    job.path.rename(dead.claims.path / job.id)
    front.look(0.0)
    assert ids(spool, "queue") == [job.id]


def test_jobs_of_the_appliance_itself_are_never_taken(front: Front, spool: Spool) -> None:
    job = takes(spool)
    for now_s in range(0, 1000, 20):
        front.look(float(now_s))
    assert ids(spool, "running") == [job.id]


def test_node_that_has_left_is_gone_at_once_and_forgotten_in_the_end_unless_it_is_drained(
    front: Front, far: Spool, spool: Spool
) -> None:
    for number, now_s in enumerate((0.0, 1.0)):
        beat(far, number)
        front.look(now_s)
    assert living(spool) == ["local", "far"]
    nodes.leave(spool.path, "far")
    front.look(2.0)
    assert living(spool) == ["local"]
    beat(far, 7)
    for now_s in range(3, int(70 * LEASE_S), 20):
        front.look(float(now_s))
    assert nodes.names(spool.path) == []


def test_only_a_node_that_is_known_can_be_drained(spool: Spool) -> None:
    with pytest.raises(ConstruirError, match="there is no node 'far'; there are: none"):
        nodes.drain(spool.path, "far", "")
    nodes.place(spool.path, "far")
    nodes.drain(spool.path, "far", "new memory")
    assert nodes.why_drained(spool.path, "far") == "new memory"
    nodes.resume(spool.path, "far")
    assert nodes.why_drained(spool.path, "far") == ""


def test_without_a_front_nobody_knows_who_lives(spool: Spool, tmp_path: Path) -> None:
    assert nodes.living(spool.path) == []
    assert nodes.names(tmp_path) == []
