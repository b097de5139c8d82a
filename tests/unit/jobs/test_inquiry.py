"""Promises of status: whoever waits is told why, and nobody is told of a path of the host."""

import json
import threading
from pathlib import Path

import msgspec
import pytest

from construir_ftp.jobs import inquiry, nodes, pilots
from construir_ftp.jobs.nodes import Offered
from construir_ftp.jobs.pilots import Pilot, Pilots
from construir_ftp.jobs.request import Terms
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.jobs.status import RunnerReport, RunningJob, in_slots
from tests.support import records
from tests.support.records import NOON


@pytest.fixture
def place(tmp_path: Path) -> Spool:
    return Spool.prepare(tmp_path / "spool")


def send(to: Spool, contributor: str = "ann", after_s: int = 0, after: tuple[str, ...] = ()) -> str:
    return records.send(to, contributor, after_s, after=list(after)).id


def take(place: Spool) -> Job:
    job = place.take()
    assert job is not None
    return job


def why(place: Spool, job_id: str) -> str:
    found = inquiry.job(place, job_id)
    assert found is not None
    return found.why


def test_a_waiting_job_is_told_its_place_and_why_it_waits(place: Spool) -> None:
    first, second, third = (send(place, after_s=second) for second in range(3))
    found = inquiry.job(place, third)
    assert found is not None
    assert (found.state, found.place) == ("waiting", 3)
    assert why(place, third) == "no runner is there to run jobs"
    with place.lock():
        inquiry.tell(place, RunnerReport(slots=1))
        assert why(place, first) == "it is about to be taken"
        take(place)
        assert why(place, second) == "every machine is busy (1 of 1)"
        inquiry.tell(place, RunnerReport(slots=2, pause="the disk is nearly full", pause_detail="/secret"))
        assert why(place, second) == "no job is taken at the moment: the disk is nearly full"
    assert why(place, second) == "no runner is there to run jobs", "what a runner said died with it"


def test_nodes_that_slurm_may_start_are_told_beside_why_a_job_waits(place: Spool) -> None:
    job = send(place)
    waiting = [Pilot(name=f"pilot-{number}", job=number, state="waiting", reason="Priority") for number in (1, 2)]
    told = (*waiting, Pilot(name="pilot-3", job=3, state="starting"), Pilot(name="pilot-4", job=4, state="running"))
    with place.lock():
        inquiry.tell(place, RunnerReport(slots=0))
        pilots.write(place.path, Pilots(pilots=told))
        slow = "2 pilots wait in Slurm (Priority), 1 pilot starts, 1 pilot runs"
        assert why(place, job) == f"every machine is busy (0 of 0); {slow}"
        pilots.write(place.path, Pilots(trouble="Slurm takes no pilot", detail="/etc/slurm/slurm.conf: no"))
        assert inquiry.summary(place, 0).why == "every machine is busy (0 of 0); Slurm takes no pilot"
        (place.path / pilots.FILE).write_bytes(b"{")
        assert why(place, job) == "every machine is busy (0 of 0)"


def test_the_machines_of_a_drained_node_are_not_counted_on(place: Spool) -> None:
    send(place)
    runs = send(place, after_s=1)
    with place.lock():
        inquiry.tell(place, RunnerReport(slots=2))
        inquiry.tell(place, RunnerReport(slots=1, busy=(RunningJob(runs, NOON),)), "far")
        nodes.judge(place.path, ["far"])
        assert inquiry.summary(place, 0).why == "it is about to be taken"
        nodes.drain(place.path, "local", "maintenance")
        assert inquiry.summary(place, 0).why == "every machine is busy (1 of 1)"


def test_a_job_that_waits_for_another_is_told_so_until_that_one_is_done(place: Spool) -> None:
    first = send(place)
    second = send(place, after_s=1, after=(first,))
    with place.lock():
        inquiry.tell(place, RunnerReport(slots=2))
        assert why(place, second) == f"it waits for the result of {first}"
        taken = take(place)
        assert why(place, second) == f"it waits for the result of {first}"
        place.finish(taken, b"{}")
        assert why(place, second) == "it is about to be taken"


def test_job_with_packages_waits_for_a_place_of_installations_and_another_for_a_machine(place: Spool) -> None:
    records.send(place, "ann", installs=True)
    installing = take(place).id
    wants, plain = records.send(place, "ann", 1, installs=True).id, send(place, after_s=2)
    installs = RunningJob(installing, NOON, "its Debian packages are being installed", installs=True)
    waits = "it waits for the place where packages are installed, which another job has"
    with place.lock():
        inquiry.tell(place, RunnerReport(slots=1, busy=(installs,), installs=1, installs_free=False))
        assert (why(place, wants), why(place, plain)) == (waits, "it is about to be taken")
        assert inquiry.summary(place, 0).why == waits
        assert in_slots(inquiry.summary(place, 0).running) == 0
        runs = RunningJob(installing, NOON)
        inquiry.tell(place, RunnerReport(slots=1, busy=(runs,), installs=1, installs_free=True))
        assert (why(place, wants), why(place, plain)) == ("it is about to be taken", "every machine is busy (1 of 1)")


def test_job_with_packages_is_told_of_all_places_of_all_nodes(place: Spool) -> None:
    records.send(place, "ann", installs=True)
    with place.lock():
        inquiry.tell(place, RunnerReport(slots=1, installs=2, installs_free=False))
        waits = "it waits for one of the {} places where packages are installed; other jobs have them"
        assert inquiry.summary(place, 0).why == waits.format(2)
        nodes.judge(place.path, ["far"])
        inquiry.tell(place, RunnerReport(slots=1, installs=1, installs_free=False), "far")
        assert inquiry.summary(place, 0).why == waits.format(3)
        inquiry.tell(place, RunnerReport(slots=1, installs=1, installs_free=True), "far")
        assert inquiry.summary(place, 0).why == "it is about to be taken"


def test_a_job_is_followed_to_its_end(place: Spool) -> None:
    sent = send(place)
    with place.lock():
        taken = take(place)
        taken.count_attempt()
        inquiry.tell(place, RunnerReport(slots=1, busy=(RunningJob(sent, NOON),)))
        found = inquiry.job(place, sent)
        assert found is not None
        assert (found.state, found.since, found.attempt, found.cancelled) == ("running", NOON, 1, False)
        place.cancel(sent)
        found = inquiry.job(place, sent)
        assert found is not None
        assert found.cancelled
        place.finish(taken, b'{"status": "failed", "reason": "run.sh ended with exit status 3", "exit_code": 3}')
    found = inquiry.job(place, sent)
    assert found is not None
    assert (found.state, found.status, found.exit_code) == ("done", "failed", 3)


@pytest.mark.parametrize("name", ["", ".", "..", "../queue", "a/b", "nothing", "a\0b", "x" * 300, "\n"])
def test_what_is_no_job_has_no_status(place: Spool, name: str) -> None:
    send(place)
    assert inquiry.job(place, name) is None


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"slots": "x"}', b"\xff", b"[" * 100_000, None])
def test_damaged_news_of_the_runner_are_no_news(place: Spool, damage: bytes | None) -> None:
    if damage is not None:
        (nodes.place(place.path, "local") / "runner.json").write_bytes(damage)
    sent = send(place)
    with place.lock():
        assert inquiry.runner(place) == RunnerReport(slots=0)
        assert inquiry.summary(place, 0).queue == [sent]


def test_the_summary_is_the_queue_in_the_order_of_turns(place: Spool) -> None:
    line = [send(place, name, after_s) for after_s, name in enumerate(["ann", "ann", "bob"])]
    told = inquiry.summary(place, 0)
    assert told.queue == [line[0], line[2], line[1]] == list(place.line())
    assert (told.waiting, told.running, told.accepts_uploads) == (3, [], True)
    assert told.why == "no runner is there to run jobs"
    assert [inquiry.place(place, job) for job in line] == [1, 3, 2]
    assert inquiry.place(place, "nothing") == 0
    assert not inquiry.summary(place, 2**62).accepts_uploads


def test_an_idle_appliance_has_no_reason_to_let_anyone_wait(place: Spool) -> None:
    assert inquiry.summary(place, 0).why == ""


@pytest.mark.long
def test_a_queue_of_ten_thousand_is_told_by_its_head_and_its_length(place: Spool) -> None:
    for number in range(10_000):
        (place.state("queue") / f"20261122T120000Z-0000-{number:05}").mkdir()
    told = inquiry.summary(place, 0)
    assert (told.waiting, len(told.queue)) == (10_000, 1000)
    assert told.queue[0].endswith("-00000")


def test_nothing_public_names_a_path_or_a_contributor(place: Spool) -> None:
    waiting = send(place, "mallory")
    with place.lock():
        inquiry.tell(place, RunnerReport(slots=1, pause="no machine can be started", pause_detail=f"{place.path}/x"))
        told = msgspec.json.encode([inquiry.summary(place, 0), inquiry.job(place, waiting)]).decode()
    assert str(place.path) not in told
    assert "mallory" not in told
    assert "/" not in told


def test_readers_never_see_half_of_what_the_runner_says(place: Spool) -> None:
    stop = threading.Event()
    seen: set[int] = set()

    def read() -> None:
        while not stop.is_set():
            told = json.loads((place.path / "nodes/local/runner.json").read_bytes())
            seen.add(told["slots"])

    inquiry.tell(place, RunnerReport(slots=1))
    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(500):
            inquiry.tell(place, RunnerReport(slots=number % 2 + 1, pause_detail="x" * 5000))
    finally:
        stop.set()
        reader.join()
    assert seen <= {1, 2}
    assert sorted(path.name for path in place.path.iterdir()) == sorted(
        ["done", "format", "incoming", "layers", "nodes", "queue", "running", "trash"]
    )


def offers(signs_as: str) -> Offered:
    terms = Terms(timeout_s=1.0, idle_timeout_s=1.0, cpus=1, memory_bytes=1, image_bytes=1, bases=())
    return Offered(
        program="0", architecture="amd64", processors=1, memory_bytes=1, slots=1, default_base="x",
        signs_as=signs_as, bases={}, terms=terms,
    )  # fmt: skip


def test_a_node_that_calls_the_appliance_otherwise_is_named(place: Spool) -> None:
    with place.lock():
        for name, signs_as in (("local", "build.example"), ("far", "far.example"), ("near", "build.example")):
            nodes.offer(place.path, name, offers(signs_as))
        nodes.judge(place.path, ["far", "near"])
        (told,) = nodes.other_names(place.path)
    assert told.startswith("node far signs results as far.example, and the appliance as build.example: set trust.name")


def test_a_node_that_has_said_nothing_yet_is_only_starting(place: Spool) -> None:
    with place.lock():
        inquiry.tell(place, RunnerReport(slots=0))
        nodes.judge(place.path, ["far"])
        told = {node.name: node.why for node in inquiry.summary(place, 0).nodes}
    assert told == {"local": "", "far": "it is only starting"}
