"""Promises of spool: 226 means kept. Nothing is lost or doubled by a crash, a power cut, a full disk or a rename."""

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO

import msgspec
import pytest

from construir_ftp import process
from construir_ftp.errors import CommandError, ConstruirError
from construir_ftp.jobs import ipc, names, spool
from construir_ftp.jobs.job import OPERATOR
from construir_ftp.jobs.spool import STATES, Job, Spool
from tests.support.places import PROJECT
from tests.support.records import NOON, UPLOAD, record, send

LONG_S = 60.0
RESULT = b'{"version": 1}'


def run(job: Job) -> None:
    """Leave in a running job what a machine leaves."""
    job.count_attempt()
    job.disk.write_bytes(b"disk")
    for name in ("output.log", "console.log", "hello.img.zst"):
        (job.path / name).write_bytes(b"x")


def files(job: Job) -> set[str]:
    return {entry.name for entry in job.path.iterdir()}


def ids(of: Spool, state: str) -> list[str]:
    return [job.id for job in of.jobs(state)]


@pytest.fixture
def place(tmp_path: Path) -> Spool:
    return Spool.prepare(tmp_path / "spool")


# -- the state table -------------------------------------------------------------------------------------------


def test_a_fresh_spool_has_exactly_the_states_and_its_form(place: Spool) -> None:
    assert {entry.name for entry in place.path.iterdir()} == {*STATES, "format"}
    assert Spool.prepare(place.path).jobs("queue") == []


def test_a_spool_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConstruirError, match=r"^spool /.*: Not a directory: .*; choose another with --spool"):
        Spool.prepare(tmp_path / "file")


def test_each_state_holds_exactly_what_the_table_says(place: Spool) -> None:
    received = place.receive()
    assert files(received) == set()
    received.upload.write_bytes(UPLOAD)
    queued = place.enqueue(place.stage(received, record()))
    assert files(queued) == {"upload", "job.json"}
    taken = place.take()
    assert taken is not None
    assert files(taken) == {"upload", "job.json"}
    run(taken)
    logs = {"output.log", "console.log", "hello.img.zst"}
    assert files(taken) == {"upload", "job.json", "attempts", "disk.img", *logs}
    again = place.requeue(taken)
    assert files(again) == {"upload", "job.json", "attempts"}
    taken = place.take()
    assert taken is not None
    run(taken)
    done = place.finish(taken, RESULT)
    assert files(done) == {"job.json", "result.json", *logs}
    assert done.result.read_bytes() == RESULT
    place.delete(done)
    assert [ids(place, state) for state in STATES] == [[]] * len(STATES)


def test_a_job_keeps_its_id_from_admission_to_done(place: Spool) -> None:
    queued = send(place)
    assert queued.id.startswith("20261122T120000Z-")
    assert queued.id.endswith("-hello")
    taken = place.take()
    assert taken is not None
    taken = place.take() if place.requeue(taken).id == queued.id else None
    assert taken is not None
    assert place.finish(taken, RESULT).path == place.state("done") / queued.id


def test_the_ticket_is_what_was_admitted(place: Spool) -> None:
    assert send(place, "bob").record() == record("bob")


@pytest.mark.parametrize("damage", [b"", b'{"version": 1}', b'{"name": "\xff"}', b"[" * 100_000])
def test_a_damaged_ticket_is_an_error_that_names_the_job(place: Spool, damage: bytes) -> None:
    job = send(place)
    (job.path / "job.json").write_bytes(damage)
    with pytest.raises(ConstruirError, match=rf"^job {job.id}: job.json can't be read: "):
        job.record()


def test_attempts_are_counted_forgiven_and_survive_a_requeue(place: Spool) -> None:
    send(place)
    taken = place.take()
    assert taken is not None
    assert taken.attempts() == 0
    taken.count_attempt()
    taken.count_attempt()
    taken.forgive_attempt()
    assert place.requeue(taken).attempts() == 1
    assert spool.MAX_ATTEMPTS == 3


def test_uploads_at_the_same_moment_under_the_same_name_get_different_ids_in_their_order(place: Spool) -> None:
    assert [send(place).id for _ in range(3)] == [f"20261122T120000Z-000{place}-hello" for place in range(3)]
    assert all(job.upload.read_bytes() == UPLOAD for job in place.jobs("queue"))


# -- turns -----------------------------------------------------------------------------------------------------


def test_one_contributor_is_served_in_the_order_of_arrival(place: Spool) -> None:
    sent = [send(place, after_s=second).id for second in range(5)]
    assert [job.id for job in iter(place.take, None)] == sent


def fill_queue(place: Spool, contributor: str, count: int) -> None:
    """Many waiting jobs, without the fsync of each that an admission costs."""
    for second in range(count):
        job = place.state("queue") / names.new_id("many", NOON + timedelta(seconds=second))
        job.mkdir()
        (job / "upload").touch()
        (job / "job.json").write_bytes(msgspec.json.encode(record(contributor)))


@pytest.mark.long
@pytest.mark.parametrize("slots", [1, 2, 5])
def test_a_thousand_jobs_of_one_delay_the_single_job_of_another_by_at_most_one(place: Spool, slots: int) -> None:
    fill_queue(place, "ann", 1000)
    running = [taken for _ in range(slots) if (taken := place.take())]
    for _ in range(3):
        place.finish(running.pop(0), RESULT)
        running += [taken for taken in [place.take()] if taken]
    single = send(place, "bob", after_s=5000)
    place.finish(running.pop(), RESULT)
    following = place.take()
    assert following is not None
    assert following.id == single.id


@pytest.mark.parametrize("restart", ["runner stopped", "runner killed"])
def test_a_restart_is_no_second_helping(place: Spool, restart: str) -> None:
    fill_queue(place, "ann", 3)
    taken = place.take()
    single = send(place, "bob", after_s=5000)
    assert taken is not None
    if restart == "runner stopped":
        place.requeue(taken)
    again = Spool.find(place.path)
    again.recover()
    following = again.take()
    assert following is not None
    assert following.id == single.id


def test_who_has_every_slot_but_one_does_not_get_that_one_too(place: Spool) -> None:
    fill_queue(place, "ann", 10)
    assert place.take() is not None
    for second in range(3):
        quick = send(place, "bob", after_s=5000 + second)
        following = place.take()
        assert following is not None
        assert following.id == quick.id, "ann's job still runs"
        place.finish(following, RESULT)


def test_the_line_is_the_order_in_which_jobs_are_taken(place: Spool) -> None:
    for number, name in enumerate(["ann", "ann", "bob", "cyd", "bob", "ann"]):
        send(place, name, after_s=number)
    line = list(place.line())
    assert [job.id for job in iter(place.take, None)] == line


def test_turns_go_round_all_contributors(place: Spool) -> None:
    for name in ("ann", "bob", "cyd"):
        for second in range(3):
            send(place, name, after_s=second)
    order = [job.record().contributor for job in iter(place.take, None)]
    assert [Counter(order[begin : begin + 3]) for begin in (0, 3, 6)] == [Counter(["ann", "bob", "cyd"])] * 3


def test_a_job_with_a_damaged_ticket_gets_its_turn_and_stops_nobody(place: Spool) -> None:
    damaged = send(place, "ann")
    (damaged.path / "job.json").write_bytes(b'{"name": "\xff"}')
    whole = send(place, "bob", after_s=1)
    assert {job.id for job in iter(place.take, None)} == {damaged.id, whole.id}


def test_tickets_are_those_of_this_moment_however_quickly_jobs_come_and_go(place: Spool) -> None:
    for second in range(300):
        job = place.state("queue") / names.new_id("quick", NOON + timedelta(seconds=second))
        job.mkdir()
        assert list(place.records("queue")) == [job.name]
        place.delete(Job(job))
        assert place.records("queue") == {}


def test_tickets_are_not_read_again_while_nothing_changes(place: Spool) -> None:
    send(place)
    place.records("queue")
    time.sleep(0.05)  # more than a tick of the clock that directories have their times from
    records = place.records("queue")
    assert len(records) == 1
    assert place.records("queue") is records
    send(place, after_s=1)
    assert len(place.records("queue")) == 2


TAKE = """
import sys
from pathlib import Path
from construir_ftp.jobs.spool import Spool
spool = Spool(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
while (job := spool.take()) is not None:
    print(job.id, flush=True)
"""


def test_two_processes_that_take_at_once_have_each_job_once(place: Spool) -> None:
    """Whoever takes a job renames it: nothing but recovery needs the lock."""
    fill_queue(place, "ann", 200)
    sent = ids(place, "queue")
    with python(TAKE, place.path) as one, python(TAKE, place.path) as other:
        for taker in (one, other):
            assert line(taker.stdout) == "ready"
        for taker in (one, other):
            assert taker.stdin is not None
            taker.stdin.write(b"go\n")
            taker.stdin.flush()
        took = [taker.communicate(timeout=LONG_S)[0].decode().split() for taker in (one, other)]
    assert sorted(took[0] + took[1]) == sent
    assert all(took), "both had a share"
    assert ids(place, "running") == sent


def test_an_empty_queue_gives_nothing(place: Spool) -> None:
    assert place.take() is None


def test_jobs_cancelled_while_others_are_taken_are_taken_or_gone_never_both(place: Spool) -> None:
    queued = [send(place, after_s=number) for number in range(200)]

    def cancel() -> None:
        for job in queued:  # in the order they are taken in, so that the two are always after the same
            place.delete(job)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    taken = [job.id for job in iter(place.take, None)]
    canceller.join()
    assert len(taken) == len(set(taken))
    assert ids(place, "running") == sorted(taken)
    assert ids(place, "queue") == ids(place, "trash") == []


# -- cancelling ------------------------------------------------------------------------------------------------


def test_a_cancelled_job_is_withdrawn_out_of_turn_and_the_lock_holder_is_woken(place: Spool) -> None:
    first, last = send(place), send(place, after_s=1)
    with place.listen() as wake:
        place.cancel(last.id)
        assert wake.recv(16) == ipc.CANCELLED
    assert ids(place, "queue") == [first.id, last.id], "whoever cancels moves nothing"
    (withdrawn,) = place.withdraw()
    assert (withdrawn.id, withdrawn.is_cancelled()) == (last.id, True)
    assert (ids(place, "queue"), ids(place, "running")) == ([first.id], [last.id])
    done = place.finish(withdrawn, RESULT)
    assert files(done) == {"job.json", "result.json"}


def test_a_wish_to_cancel_survives_a_requeue_and_a_crash(place: Spool) -> None:
    job = send(place)
    taken = place.take()
    assert taken is not None
    place.cancel(job.id)
    run(taken)
    assert place.requeue(taken).is_cancelled()
    assert place.take() is not None
    assert [found.is_cancelled() for found in Spool(place.path).recover()] == [True]


def test_a_wish_that_comes_too_late_is_refused_and_leaves_nothing(place: Spool) -> None:
    send(place)
    taken = place.take()
    assert taken is not None
    done = place.finish(taken, RESULT)
    for job_id in (done.id, "20000101T000000Z-0000-nothing"):
        with pytest.raises(FileNotFoundError):
            place.cancel(job_id)
    assert files(done) == {"job.json", "result.json"}


def test_cancelling_follows_no_symlink(place: Spool, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (place.state("queue") / "planted").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="planted"):
        place.cancel("planted")
    job = send(place)
    (job.path / "cancel").symlink_to(tmp_path / "elsewhere" / "file")
    place.cancel(job.id)
    assert not (job.path / "cancel").is_symlink(), "the marker has taken its place"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_marker_says_whose_wish_it_is_and_an_empty_one_is_the_contributors(place: Spool) -> None:
    jobs = [send(place, after_s=number) for number in range(3)]
    place.cancel(jobs[0].id)
    place.cancel(jobs[1].id, OPERATOR)
    (jobs[2].path / "cancel").touch()  # of an older version
    assert [job.cancelled_by() for job in jobs] == ["its contributor", "the operator", "its contributor"]


def test_cancelling_to_the_last_moment_marks_the_right_job_and_publishes_no_marker(place: Spool) -> None:
    queued = [send(place, after_s=number).id for number in range(100)]

    def cancel_until_refused() -> None:
        for job_id in queued:
            with suppress(FileNotFoundError):
                while True:
                    place.cancel(job_id)

    canceller = threading.Thread(target=cancel_until_refused)
    canceller.start()
    for job in iter(place.take, None):
        place.finish(job, RESULT)
    canceller.join()
    assert ids(place, "done") == queued
    assert all(files(job) == {"job.json", "result.json"} for job in place.jobs("done"))


# -- the lock and the datagram ---------------------------------------------------------------------------------


def test_a_runner_of_0_2_that_still_runs_keeps_a_newer_one_from_the_spool(place: Spool) -> None:
    """It locks the whole file, from the first byte to the end."""
    with (place.path / "lock").open("a+b") as file:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        assert place.is_locked()
        with pytest.raises(ConstruirError, match="another runner already works on"), place.lock():
            pass
    with place.lock():
        pass


HOLD_LOCK = """
import sys, time
from pathlib import Path
from construir_ftp.errors import ConstruirError
from construir_ftp.jobs.spool import Spool
try:
    with Spool(Path(sys.argv[1])).lock():
        print("held", flush=True)
        sys.stdin.read()
except ConstruirError as error:
    print(error, flush=True)
"""


def environment() -> dict[str, str]:
    packages = Path(msgspec.__file__).parent.parent
    return process.environment(PYTHONPATH=f"{PROJECT}:{packages}", PYTHONDONTWRITEBYTECODE="1")


@contextmanager
def python(program: str, *arguments: str | Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A second process that runs `program`, killed at the end if it still lives."""
    pipe = subprocess.PIPE
    argv = [sys.executable, "-S", "-c", program, *arguments]
    with process.spawn(argv, stdin=pipe, stdout=pipe, env=environment()) as child:
        try:
            yield child
        finally:
            child.kill()


def line(stream: IO[bytes] | None) -> str:
    assert stream is not None
    return stream.readline().decode().rstrip("\n")


def test_two_processes_never_hold_the_lock_at_once(place: Spool) -> None:
    with place.lock():
        with python(HOLD_LOCK, place.path) as other:
            assert line(other.stdout).startswith(f"another runner already works on {place.path}; stop it, or ")
        with pytest.raises(ConstruirError, match="another runner already works on"), place.lock():
            pass
    with place.lock():
        pass


def test_asking_whether_the_lock_is_held_disturbs_nobody(place: Spool) -> None:
    assert not place.is_locked()
    with place.lock():
        assert place.is_locked()
        assert Spool(place.path).is_locked()
        with python(HOLD_LOCK, place.path) as other:
            assert line(other.stdout).startswith("another runner already works on")
    assert not place.is_locked()
    with python(HOLD_LOCK, place.path) as other:
        assert line(other.stdout) == "held"
        assert place.is_locked()
        other.kill()
        other.wait()
        assert not place.is_locked()
    asking = threading.Event()

    def ask() -> None:
        while not asking.is_set():
            place.is_locked()

    curious = threading.Thread(target=ask)
    curious.start()
    try:
        for _ in range(300):
            with place.lock():
                pass
    finally:
        asking.set()
        curious.join()


def test_the_lock_of_a_killed_process_is_free(place: Spool) -> None:
    with python(HOLD_LOCK, place.path) as other:
        assert line(other.stdout) == "held"
        with pytest.raises(ConstruirError, match="another runner"), place.lock():
            pass
        other.kill()
        other.wait()
        with place.lock():
            pass


@pytest.mark.parametrize("depth", [0, 3], ids=["short path", "path beyond sockaddr_un"])
def test_the_listener_is_woken_by_an_admission(tmp_path: Path, depth: int) -> None:
    path = Path(tmp_path, *["d" * 60] * depth)
    place = Spool.prepare(path)
    assert depth == 0 or len(str(path)) > 180
    with place.listen() as wake:
        assert select.select([wake], [], [], 0)[0] == []
        send(place)
        assert select.select([wake], [], [], LONG_S)[0] == [wake]
        assert wake.recv(16)
        assert ids(place, "queue")


def test_the_listener_is_woken_from_another_process(place: Spool) -> None:
    program = (
        "import sys; from pathlib import Path; from construir_ftp.jobs.spool import Spool;"
        "Spool(Path(sys.argv[1])).wake()"
    )
    with place.listen() as wake, python(program, place.path) as other:
        assert select.select([wake], [], [], LONG_S)[0] == [wake]
        assert other.wait() == 0


def test_any_user_who_reaches_the_spool_may_wake_the_runner(place: Spool) -> None:
    with place.listen():
        assert (place.path / "wake").stat().st_mode & 0o222 == 0o222


def test_waking_nobody_or_somebody_busy_neither_fails_nor_waits(place: Spool) -> None:
    place.wake()
    with place.listen() as wake:
        for _ in range(2000):  # far beyond net.unix.max_dgram_qlen
            place.wake()
        assert wake.recv(16)
    place.wake()  # the socket's file is there, the listener is gone


def test_a_new_listener_takes_over_from_a_dead_one(place: Spool) -> None:
    with place.listen():
        pass
    with place.listen() as wake:
        place.wake()
        assert select.select([wake], [], [], LONG_S)[0] == [wake]


# -- planted things --------------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory that is no business of the spool's, in the likeness of a job."""
    target = tmp_path / "outside"
    target.mkdir()
    (target / "upload").write_bytes(b"secret")
    (target / "job.json").write_bytes(msgspec.json.encode(record("mallory")))
    (target / "precious").write_bytes(b"mine")
    return target


def test_a_symlink_planted_in_a_state_is_never_a_job(place: Spool, outside: Path) -> None:
    for state in STATES:
        (place.state(state) / "00000000T000000Z-0000-planted").symlink_to(outside)
        (place.state(state) / "00000000T000000Z-0000-file").touch()
    honest = send(place)
    assert all("00000000T000000Z-0000-planted" not in ids(place, state) for state in STATES)
    taken = place.take()
    assert taken is not None
    assert taken.id == honest.id
    assert place.take() is None
    assert [job.id for job in place.recover()] == [honest.id]
    place.sweep_trash()
    assert {entry.name for entry in outside.iterdir()} == {"upload", "job.json", "precious"}
    assert list(place.state("trash").iterdir()) == []


def test_a_result_with_the_longest_name_there_can_be_is_deleted(place: Spool) -> None:
    longest = Job(place.state("done") / ("x" * 255))
    longest.path.mkdir()
    place.delete(longest)
    assert ids(place, "done") == []
    assert list(place.state("trash").iterdir()) == []


def test_deleting_a_symlink_deletes_nothing_else(place: Spool, outside: Path) -> None:
    link = place.state("queue") / "planted"
    link.symlink_to(outside)
    place.delete(Job(link))
    assert not link.is_symlink()
    assert (outside / "precious").exists()
    assert list(place.state("trash").iterdir()) == []


def test_a_symlink_inside_a_job_is_removed_not_followed(place: Spool, outside: Path) -> None:
    send(place)
    taken = place.take()
    assert taken is not None
    (taken.path / "out").symlink_to(outside)
    place.requeue(taken)
    assert (outside / "precious").exists()
    assert not (taken.path / "out").is_symlink()


def test_a_planted_job_json_is_not_written_through(place: Spool, outside: Path) -> None:
    job = place.receive()
    job.upload.write_bytes(UPLOAD)
    (job.path / "job.json").symlink_to(outside / "precious")
    with pytest.raises(FileExistsError):
        place.enqueue(place.stage(job, record()))
    assert (outside / "precious").read_bytes() == b"mine"
    assert ids(place, "queue") == []


# -- deleting --------------------------------------------------------------------------------------------------


def test_deleting_what_is_gone_is_no_error(place: Spool) -> None:
    job = send(place)
    place.delete(job)
    place.delete(job)
    assert place.jobs("queue") == []


def test_trash_is_swept_although_one_thing_in_it_resists(place: Spool) -> None:
    trash = place.state("trash")
    (trash / "tree" / "below").mkdir(parents=True)
    (trash / "file").touch()
    with unremovable(trash):
        place.sweep_trash()
        assert (trash / "stuck").exists()
    place.sweep_trash()
    assert list(trash.iterdir()) == []


KILLED_BEFORE_THE_RENAME = """
import os, signal, sys
from pathlib import Path
from construir_ftp.jobs import inquiry, service
from construir_ftp.jobs.spool import Spool
from construir_ftp.jobs.status import RunnerReport

def die(event, arguments):
    if event == "os.rename":
        os.kill(os.getpid(), signal.SIGKILL)

spool = Spool.find(Path(sys.argv[1]))
sys.addaudithook(die)
if sys.argv[2] == "cancel":
    spool.cancel(spool.names("queue")[0], "the operator")
elif sys.argv[2] == "drain":
    service.decide(spool.path, service.Service(takes_jobs=False, why="x"))
elif sys.argv[2] == "report":
    inquiry.tell(spool, RunnerReport(slots=1))
else:
    spool._turns.note("ann")
"""


@pytest.mark.parametrize("what", ["cancel", "drain", "report", "turn"])
def test_what_was_being_written_by_a_killed_process_is_swept_once_it_is_old(place: Spool, what: str) -> None:
    send(place)
    (place.path / ".cancel.notes").touch()
    (place.path / "nodes/local").mkdir(parents=True, exist_ok=True)
    there = set(place.path.rglob("*"))
    argv: list[str | Path] = [sys.executable, "-c", KILLED_BEFORE_THE_RENAME, place.path, what]
    with process.spawn(argv) as killed:
        assert killed.wait(LONG_S) == -signal.SIGKILL
    [left] = set(place.path.rglob("*")) - there
    place.sweep_trash()
    assert left.exists(), "another process may be about to rename it"
    an_hour_ago_s = time.time() - 3601
    for entry in place.path.rglob("*"):
        os.utime(entry, (an_hour_ago_s, an_hour_ago_s))
    place.sweep_trash()
    assert set(place.path.rglob("*")) == there
    assert len(ids(place, "queue")) == 1


@contextmanager
def unremovable(directory: Path) -> Iterator[None]:
    """A `stuck` in `directory` that can't be removed meanwhile."""
    stuck = directory / "stuck"
    stuck.mkdir()
    (stuck / "file").touch()
    if os.geteuid() != 0:
        stuck.chmod(0o500)
        yield
        stuck.chmod(0o700)
        return
    try:
        process.run(["chattr", "+i", stuck / "file"], timeout_s=LONG_S)
    except CommandError as error:
        pytest.skip(f"no way to make a file that root can't remove: {error}")
    try:
        yield
    finally:
        process.run(["chattr", "-i", stuck / "file"], timeout_s=LONG_S)
