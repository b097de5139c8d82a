"""client.watching: a job is followed to its end, each thing told once, whatever becomes of the connection."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from construir_ftp.cli.output import Clock
from construir_ftp.client.address import Address
from construir_ftp.client.connection import Patience, Remote
from construir_ftp.client.status import Standing
from construir_ftp.client.watch import Event, Printed, Restarted, Watch
from construir_ftp.errors import AnswerError, MissingError, UnreachableError
from construir_ftp.jobs import inquiry
from construir_ftp.jobs.result import Result
from construir_ftp.jobs.spool import Job
from construir_ftp.jobs.status import RunnerReport, RunningJob
from tests.support import images
from tests.support.cutter import Cutter
from tests.support.fakeserver import FakeServer
from tests.support.ftpclient import LONG_S, House

SOON_S = 0.05  # pauses that are over soon
JOB = images.image("ext2", 2**20)


def events(port: int, job_id: str, patience_s: float = 10.0) -> Iterator[Event]:
    server = Remote(Address("ftp", "127.0.0.1", port))
    return Watch(server, job_id, SOON_S).events(Patience(patience_s, lambda _: None, SOON_S))


def submit(house: House, name: str = "x.img") -> str:
    with house.connect() as alice:
        return alice.log_in().store(f"/queue/{name}", JOB).split()[4].rstrip(",")


def take(house: House) -> Job:
    job = house.spool.take()
    assert job is not None
    job.count_attempt()
    return job


def finish(house: House, job: Job, **told: object) -> None:
    result = {"id": job.id, "status": "failed", "reason": "it failed", "exit_code": 3, "attempt": job.attempts()}
    house.spool.finish(job, json.dumps({**result, **told}).encode())


def until(found: Iterator[Event], wanted: Callable[[Event], bool]) -> list[Event]:
    """The events up to the one that is wanted."""
    seen: list[Event] = []
    for event in found:
        seen.append(event)
        if wanted(event):
            return seen
    raise AssertionError(seen)


def printed(seen: list[Event]) -> bytes:
    return b"".join(event.data for event in seen if isinstance(event, Printed))


def runs(event: Event) -> bool:
    return isinstance(event, Standing) and event.state == "running"


def ended(event: Event) -> bool:
    return isinstance(event, Result)


def test_a_job_is_followed_from_its_place_in_the_queue_to_its_end(house: House) -> None:
    submit(house, "first.img")
    job_id = submit(house)
    found = events(house.server.address[1], job_id)
    waiting = next(found)
    assert waiting == Standing(id=job_id, state="waiting", place=2, why="no runner is there to run jobs")
    with house.spool.lock():
        inquiry.tell(house.spool, RunnerReport(slots=1, busy=(RunningJob("x", None),)))
        finish(house, take(house))
        assert next(found) == Standing(id=job_id, state="waiting", place=1, why="it is about to be taken")
        job = take(house)
        inquiry.tell(
            house.spool, RunnerReport(slots=2, busy=(RunningJob(job_id, None, "its packages are being installed"),))
        )
        seen = until(found, lambda event: runs(event) and bool(event.why))  # type: ignore[union-attr]
        assert seen[-1].why == "its packages are being installed"  # type: ignore[union-attr]
        log = job.path / "output.log"
        log.write_bytes(b"one\n")
        until(found, lambda event: event == Printed(b"one\n"))
        log.write_bytes(b"one\ntwo\n")
        until(found, lambda event: event == Printed(b"two\n"))
        log.write_bytes(b"one\ntwo\nthe end\n")
        finish(house, job)
    seen = until(found, ended)
    assert printed(seen) == b"the end\n"
    assert isinstance(seen[-1], Result)
    assert (seen[-1].status, seen[-1].exit_code) == ("failed", 3)


def plainly(shown: str) -> str:
    """What a terminal was sent, without what moves its cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "\n")


def test_how_far_it_is_is_told_as_one_event_each_and_a_line_only_now_and_then(house: House, tmp_path: Path) -> None:
    job_id = submit(house)
    with house.spool.lock():
        job = take(house)

        def report(progress: str) -> None:
            busy = RunningJob(job_id, None, "its Debian packages are being installed", progress=progress)
            inquiry.tell(house.spool, RunnerReport(slots=1, busy=(busy,)))

        report("step 1 of 8, unpacking gcc")
        found = events(house.server.address[1], job_id)
        assert runs(first := next(found))
        assert isinstance(first, Standing)
        assert first.progress == "step 1 of 8, unpacking gcc"
        with house.connect() as anyone:
            said = anyone.log_in("anonymous").ask(f"SITE STATUS {job_id}")
        assert "; its Debian packages are being installed: step 1 of 8, unpacking gcc; see " in said
        words = [sys.executable, "-m", "construir_ftp", "watch", job_id]
        words.append(f"--server=ftp://127.0.0.1:{house.server.address[1]}")
        env = {**os.environ, "HOME": str(tmp_path)}
        with subprocess.Popen(words, env=env, stdin=-3, stdout=-3, stderr=-1, text=True) as watching:
            assert watching.stderr is not None
            told = watching.stderr.readline()
            report("step 2 of 8, unpacking libc6-dev")
            assert next(found).progress == "step 2 of 8, unpacking libc6-dev"  # type: ignore[union-attr]
            time.sleep(1.5)
            finish(house, job)
            told += watching.stderr.read()
    lines = told.splitlines()
    assert lines[0] == "construir: running; its Debian packages are being installed"
    assert not [line for line in lines if "step" in line], "half a minute has not gone by"


def test_a_line_says_how_far_it_is_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock(every_s=0)
    clock.show("its Debian packages are being installed", "step 2 of 8, unpacking [gcc]")
    clock.show("waiting, number 1 in the queue")
    clock.close()
    assert capsys.readouterr().err == (
        "construir: its Debian packages are being installed: step 2 of 8, unpacking [gcc], 0 s so far\n"
    )


def test_whoever_watches_sees_a_clock_while_packages_install_and_each_line_once(house: House, tmp_path: Path) -> None:
    job_id = submit(house)
    with house.spool.lock():
        job = take(house)
        busy = RunningJob(job_id, None, "its Debian packages are being installed")
        inquiry.tell(house.spool, RunnerReport(slots=1, busy=(busy,)))
        words = [sys.executable, "-m", "construir_ftp", "watch", job_id]
        words.append(f"--server=ftp://127.0.0.1:{house.server.address[1]}")
        env = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1", "HOME": str(tmp_path)}
        argv = ["script", "-qefc", shlex.join(words), "/dev/null"]
        with subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as watching:
            assert watching.stdout is not None
            seen = ""
            while not re.search(r"its Debian packages are being installed 0:00:0[2-9]", seen):
                seen += watching.stdout.read(1)
            far = RunningJob(job_id, None, busy.doing, progress="step 2 of 8, unpacking gcc")
            inquiry.tell(house.spool, RunnerReport(slots=1, busy=(far,)))
            while not re.search(r"installed: step 2 of 8, unpacking gcc 0:00:0[2-9]", seen):
                seen += (piece := watching.stdout.read(1))
                assert piece, seen
            # Now it has its machine; that its state is told once more, with another time, is no news.
            begun = [RunningJob(job_id, datetime(2026, 1, day, tzinfo=UTC)) for day in (1, 2)]
            inquiry.tell(house.spool, RunnerReport(slots=1, busy=(begun[0],)))
            while "construir: running\n" not in plainly(seen):
                seen += (piece := watching.stdout.read(1))
                assert piece, seen
            inquiry.tell(house.spool, RunnerReport(slots=1, busy=(begun[1],)))
            time.sleep(1.5)
            finish(house, job)
            seen += watching.stdout.read()
    lines = [line.strip() for line in plainly(seen).splitlines()]
    assert lines.count("construir: running; its Debian packages are being installed") == 1
    assert lines.count("construir: running") == 1, lines


def test_what_was_printed_comes_once_though_the_connection_is_cut(house: House) -> None:
    submit(house)
    text = b"".join(b"line %07d\n" % number for number in range(40_000))
    with house.spool.lock(), Cutter(house.server.address, cuts=[100_000, 1, 200_000]) as network:
        job = take(house)
        (job.path / "output.log").write_bytes(text[:400_000])
        found = events(network.port, job.id)
        seen: list[Event] = []
        while len(printed(seen)) < 400_000:
            seen += until(found, lambda event: isinstance(event, Printed))
        network.cut()
        (job.path / "output.log").write_bytes(text)
        finish(house, job)
        seen += until(found, ended)
        assert network.sessions == 5
    assert printed(seen) == text
    assert not any(isinstance(event, Restarted) for event in seen)


def test_a_job_that_is_started_again_is_shown_from_its_beginning(house: House) -> None:
    submit(house)
    with house.spool.lock():
        job = take(house)
        (job.path / "output.log").write_bytes(b"first try\n")
        found = events(house.server.address[1], job.id)
        until(found, lambda event: event == Printed(b"first try\n"))
        (job.path / "output.log").unlink()
        house.spool.requeue(job)
        job = take(house)
        (job.path / "output.log").write_bytes(b"the second try, a longer one\n")
        seen = until(found, lambda event: isinstance(event, Printed))
        assert [event for event in seen if isinstance(event, Restarted | Printed)] == [
            Restarted(),
            Printed(b"the second try, a longer one\n"),
        ]
        finish(house, job)
    assert printed(until(found, ended)) == b""


def test_a_job_that_printed_nothing_before_it_is_started_again_is_told_in_one_line(house: House) -> None:
    job_id = submit(house)
    argv = [
        sys.executable,
        "-m",
        "construir_ftp",
        "watch",
        job_id,
        f"--server=ftp://127.0.0.1:{house.server.address[1]}",
    ]
    with (
        house.spool.lock(),
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching,
    ):
        assert watching.stderr is not None
        inquiry.tell(house.spool, RunnerReport(slots=1))
        job = take(house)
        (job.path / "output.log").touch()
        for line in watching.stderr:
            if line == "construir: running\n":
                break
        house.spool.requeue(job)
        job = take(house)
        (job.path / "output.log").write_bytes(b"hello\n")
        finish(house, job)
        printed_all, told = watching.communicate(timeout=LONG_S)
    assert printed_all == "hello\n"
    assert told.count("construir: the server had to start the job again, by no fault of its own; ") == 1
    assert "construir: failed: it failed\n" in told


def test_a_job_that_is_done_is_shown_at_once_and_one_without_a_log_too(house: House) -> None:
    told = {"id": "x", "status": "cancelled", "reason": "its contributor wanted no more of it", "exit_code": None}
    house.publish("20261122T104102Z-7f3a-x", {"result.json": json.dumps(told).encode()})
    seen = list(events(house.server.address[1], "20261122T104102Z-7f3a-x"))
    assert [type(event) for event in seen] == [Standing, Result]


def test_a_job_that_is_not_there_is_missing(house: House) -> None:
    for name in ("20261122T104102Z-7f3a-x", "../queue", "*", "x y"):
        with pytest.raises(MissingError):
            list(events(house.server.address[1], name))


def test_patience_ends_where_the_server_never_comes_back(house: House, tmp_path: Path) -> None:
    job_id = submit(house)
    with Cutter(house.server.address) as network:
        found = events(network.port, job_id, patience_s=0.3)
        next(found)
        port = network.port
    assert port
    with pytest.raises(UnreachableError):
        list(found)


@pytest.mark.parametrize(
    "reply",
    [
        "211 x is eating",
        "211 ../x is waiting, number 1 in the queue; z",
        "211 ",
        "200 x is done: y",
        "211 x is \x1b[2J",
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error_in_one_line(reply: str) -> None:
    with FakeServer(status=reply) as server, pytest.raises(AnswerError) as error:
        list(events(server.port, "x", patience_s=0))
    assert str(error.value).isprintable()


@pytest.mark.parametrize("told", [b"{}", b"[" * 100_000, b'{"status": 1}', b"\xff", b""])
def test_a_result_that_makes_no_sense_is_an_error_in_one_line(told: bytes) -> None:
    files = {"/done/x/result.json": told}
    with FakeServer(status="211 x is done: y", files=files) as server, pytest.raises(AnswerError) as error:
        list(events(server.port, "x", patience_s=0))
    assert str(error.value).isprintable()
