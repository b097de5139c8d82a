"""Promises of the spool that hold although a process is killed, a disk is full, or the power fails."""

import errno
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from construir_ftp import process
from construir_ftp.errors import CommandError
from construir_ftp.jobs.spool import Spool
from tests.support.records import UPLOAD, send, take_back
from tests.unit.jobs.test_spool import (
    LONG_S,
    RESULT,
    environment,
    files,
    ids,
    line,
    python,
    run,
)


@pytest.fixture
def place(tmp_path: Path) -> Spool:
    return Spool.prepare(tmp_path / "spool")


# -- crashes ---------------------------------------------------------------------------------------------------

# Uploads two jobs, requeues one, finishes both, deletes one; says each thing once it may be relied upon. What it
# says goes by writev, which no test injects a fault into.
LIVE = """
import os, sys
from pathlib import Path
from construir_ftp.jobs.spool import Spool
from tests.support.records import UPLOAD, record

def say(*words):
    os.writev(1, [(" ".join(words) + "\\n").encode()])
    if "--step" in sys.argv:
        os.read(0, 1)

spool = Spool.prepare(Path(sys.argv[1]))
for number in range(2):
    job = spool.receive()
    try:
        job.upload.write_bytes(UPLOAD)
        say("accepted", spool.enqueue(spool.stage(job, record(after_s=number))).id)
    except OSError as error:
        spool.delete(job)
        say("refused", str(error.errno))
with spool.lock():
    for turn in range(4):
        job = spool.take()
        if job is None:
            break
        try:
            job.count_attempt()
            job.disk.write_bytes(b"disk")
            (job.path / "output.log").write_bytes(b"hello")
            if turn == 0:
                raise OSError("a fault of ours")
        except OSError:
            spool.requeue(job)
            continue
        for retry in range(2):
            try:
                say("finished", spool.finish(job, b'{"version": 1}').id)
                break
            except OSError as error:
                say("waits", job.id)
    for job in spool.jobs("done")[:1]:
        say("deleting", job.id)
        spool.delete(job)
        say("deleted", job.id)
"""

RECOVER = """
import sys
from pathlib import Path
from construir_ftp.jobs.spool import Spool
spool = Spool(Path(sys.argv[1]))
with spool.lock():
    spool.recover()
    spool.sweep_trash()
"""

CHANGES = "fsync,?rename,renameat,renameat2,?link,linkat,?unlink,unlinkat,?rmdir,?mkdir,mkdirat"


def strace(
    place: Path, program: str, trace: str, inject: str, tmp_path: Path, arguments: tuple[str, ...] = ()
) -> tuple[int, list[str]]:
    """Run a program on a spool under strace(1); its exit status, and the lines of the trace."""
    if process.find("strace") is None:
        pytest.skip("strace is not installed")
    argv: list[str | Path] = ["strace", "-f", "-y", "-qq", "-e", "signal=none", "-o", tmp_path / "trace"]
    argv += ["-e", f"trace={trace}", *(["-e", f"inject={inject}"] if inject else [])]
    argv += [] if "signal=" in inject else ["--seccomp-bpf"]  # quicker, but strace 6.1 then injects no signals
    with (tmp_path / "said").open("wb") as said, (tmp_path / "errors").open("wb") as errors:
        argv += ["--", sys.executable, "-S", "-c", program, place, *arguments]
        with process.spawn(argv, stdout=said, stderr=errors, env=environment()) as child:
            status = child.wait(LONG_S)
    told = (tmp_path / "errors").read_text()
    if "PTRACE" in told:
        pytest.skip(f"strace may not trace here: {told.strip().splitlines()[0]}")
    assert told == ""
    return status, (tmp_path / "trace").read_text().splitlines()


def said(tmp_path: Path) -> dict[str, list[str]]:
    """What LIVE said, by the first word."""
    heard: dict[str, list[str]] = {}
    for words in (tmp_path / "said").read_text().splitlines():
        heard.setdefault(words.split()[0], []).append(words.split()[1])
    return heard


def holds(place: Spool, heard: dict[str, list[str]]) -> None:
    """Every acknowledged job is in exactly one state, whole, and comes to done/ exactly once."""
    with place.lock():
        place.recover()
        where = Counter(ids(place, "queue") + ids(place, "running") + ids(place, "done"))
        kept = set(heard.get("accepted", [])) - set(heard.get("deleting", []))
        assert set(where.values()) <= {1}, "in two states"
        assert kept <= set(where), "lost"
        assert set(heard.get("finished", [])) - set(heard.get("deleting", [])) <= set(ids(place, "done"))
        assert not set(heard.get("deleted", [])) & set(where)
        for job in iter(place.take, None):
            assert job.upload.read_bytes() == UPLOAD
            assert job.record().codec == "raw"
            assert files(job) <= {"upload", "job.json", "attempts"}
            place.finish(job, RESULT)
    place.sweep_trash()
    assert ids(place, "queue") == ids(place, "running") == ids(place, "trash") == []
    assert kept <= set(ids(place, "done"))
    for job in place.jobs("done"):
        assert job.result.read_bytes() == RESULT
        assert files(job) <= {"job.json", "output.log", "result.json"}


def test_kill_9_anywhere_loses_and_doubles_nothing(tmp_path: Path) -> None:
    status, clean = strace(tmp_path / "unharmed", LIVE, CHANGES, "", tmp_path)
    assert status == 0
    assert {what: len(which) for what, which in said(tmp_path).items()} == {
        "accepted": 2,
        "finished": 2,
        "deleting": 1,
        "deleted": 1,
    }
    assert len(clean) > 60
    for place, _ in killed_anywhere(LIVE, tmp_path, lambda _: []):
        holds(place, said(tmp_path))


def killed_anywhere(
    program: str, tmp_path: Path, prepare: Callable[[Path], list[str]]
) -> Iterator[tuple[Spool, list[str]]]:
    """Spools as a program leaves them that is killed in front of one call by which it changes something: of each such
    call one, and what `prepare`, which makes them, has told of it.
    """
    prepare(tmp_path / "clean")
    status, clean = strace(tmp_path / "clean", program, CHANGES, "", tmp_path)
    assert status == 0
    assert len(clean) > 10
    for number, fault in enumerate(kills(clean)):
        path = tmp_path / str(number)
        told = prepare(path)
        status, _ = strace(path, program, CHANGES, fault, tmp_path)
        assert status == -signal.SIGKILL
        yield Spool.prepare(path), told
        shutil.rmtree(path)


def kills(trace: list[str]) -> list[str]:
    """For each call of the trace, what makes strace kill the process in front of it; strace counts each by name."""
    count: Counter[str] = Counter()
    faults = []
    for call in trace:
        name = call.split()[1].partition("(")[0]
        count[name] += 1
        faults.append(f"{name}:signal=KILL:when={count[name]}")
    return faults


def test_kill_9_during_recovery_loses_and_doubles_nothing(tmp_path: Path) -> None:
    def crashed(path: Path) -> list[str]:
        place = Spool.prepare(path)
        accepted = [send(place, after_s=second).id for second in range(3)]
        for job in [place.take(), place.take()]:
            assert job is not None
            job.count_attempt()
            job.disk.write_bytes(b"disk")
            (job.path / "output.log").write_bytes(b"hello")
        place.jobs("running")[1].result.write_bytes(RESULT)  # killed before its upload was removed
        return accepted

    for place, accepted in killed_anywhere(RECOVER, tmp_path, crashed):
        holds(place, {"accepted": accepted, "finished": [accepted[1]]})
        assert ids(place, "done") == accepted


TAKE_BACK = """
import sys
from pathlib import Path
from construir_ftp.jobs.spool import Spool
from tests.support.records import take_back
take_back(Spool(Path(sys.argv[1])), "far")
"""


def test_kill_9_while_jobs_are_taken_from_a_node_loses_and_doubles_nothing(tmp_path: Path) -> None:
    def held(path: Path) -> list[str]:
        place, node = Spool.prepare(path), Spool(path, "far")
        accepted = [send(place, after_s=second).id for second in range(2)]
        for job in [node.take(), node.take()]:
            assert job is not None
            job.count_attempt()
            (job.path / "output.log").write_bytes(b"hello")
        node.jobs("running")[1].result.write_bytes(RESULT)
        return accepted

    for place, accepted in killed_anywhere(TAKE_BACK, tmp_path, held):
        take_back(place, "far")
        assert [job.attempts() for job in place.jobs("queue")] == [1]
        holds(place, {"accepted": accepted, "finished": [accepted[1]]})
        assert ids(place, "done") == accepted


def test_a_job_with_a_result_is_published_by_recovery_not_run_again(place: Spool) -> None:
    send(place)
    taken = place.take()
    assert taken is not None
    run(taken)
    taken.result.write_bytes(RESULT)
    assert place.recover() == []
    (done,) = place.jobs("done")
    assert files(done) == {"job.json", "output.log", "console.log", "hello.img.zst", "result.json"}


# -- a full disk -----------------------------------------------------------------------------------------------

SEND = """
import sys
from pathlib import Path
from construir_ftp.jobs.spool import Spool
from tests.support.records import UPLOAD, record
spool = Spool(Path(sys.argv[1]))
job = spool.receive()
job.upload.write_bytes(UPLOAD)
try:
    print("accepted", spool.enqueue(spool.stage(job, record())).id)
except OSError as error:
    print("refused", error.errno)
    spool.delete(job)
"""


def test_an_upload_that_could_not_be_put_on_stable_storage_is_refused_and_never_runs(tmp_path: Path) -> None:
    Spool.prepare(tmp_path / "clean")
    status, clean = strace(tmp_path / "clean", SEND, "fsync", "", tmp_path)
    assert (status, list(said(tmp_path)), len(clean)) == (0, ["accepted"], 5)
    for number in range(1, len(clean) + 1):
        place = Spool.prepare(tmp_path / str(number))
        status, _ = strace(place.path, SEND, "fsync", f"fsync:error=EIO:when={number}", tmp_path)
        assert (status, list(said(tmp_path))) == (0, ["refused"])
        assert {state: ids(place, state) for state in ("incoming", "queue")} == {"incoming": [], "queue": []}


def test_one_write_without_room_refuses_or_delays_but_loses_nothing(tmp_path: Path) -> None:
    _, clean = strace(tmp_path / "clean", LIVE, "write", "", tmp_path)
    faults = 0
    for call in range(1, len(clean) + 1):
        path = tmp_path / str(call)
        status, trace = strace(path, LIVE, "write", f"write:error=ENOSPC:when={call}", tmp_path)
        assert status == 0
        faults += sum("ENOSPC" in entry for entry in trace)
        heard = said(tmp_path)
        assert len(heard.get("accepted", [])) + len(heard.get("refused", [])) == 2
        assert set(heard.get("refused", [])) <= {str(errno.ENOSPC)}
        assert ids(Spool(path), "incoming") == []
        holds(Spool(path), heard)
    assert faults == len(clean) >= 2 * 5


def test_a_disk_that_stays_full_refuses_and_waits_but_loses_nothing(tmp_path: Path) -> None:
    _, clean = strace(tmp_path / "clean", LIVE, "write", "", tmp_path)
    for call in range(1, len(clean) + 1, 2):
        path = tmp_path / str(call)
        status, _ = strace(path, LIVE, "write", f"write:error=ENOSPC:when={call}+", tmp_path)
        assert status == 0
        heard = said(tmp_path)
        assert len(heard.get("accepted", [])) + len(heard.get("refused", [])) == 2
        holds(Spool(path), heard)


def test_a_result_without_room_waits_and_is_published_later(place: Spool, tmp_path: Path) -> None:
    send(place)
    taken = place.take()
    assert taken is not None
    run(taken)
    program = "import sys; from pathlib import Path; from construir_ftp.jobs.spool import Job, Spool; "
    program += "p = Path(sys.argv[1]); Spool(p).finish(Job(p / 'running' / sys.argv[2]), b'{}')"
    status, trace = strace(place.path, program, "write", "write:error=ENOSPC:when=1+", tmp_path, (taken.id,))
    assert status != 0
    assert "ENOSPC" in trace[0]
    assert ids(place, "running") == [taken.id]
    assert files(taken) >= {"upload", "disk.img", "hello.img.zst"}
    assert place.finish(taken, RESULT).result.read_bytes() == RESULT


# -- what has to be said to the file system, and in which order --------------------------------------------------

ADMIT = """
import sys
from pathlib import Path
from construir_ftp.jobs.spool import Job, Spool
from tests.support.records import record
spool = Spool(Path(sys.argv[1]))
spool.enqueue(spool.stage(Job(spool.state("incoming") / sys.argv[2]), record()))
"""

FINISH = """
import sys
from pathlib import Path
from construir_ftp.jobs.spool import Spool
spool = Spool(Path(sys.argv[1]))
(job,) = spool.jobs("running")
spool.finish(job, b"{}")
"""


def calls(trace: list[str], place: Path) -> list[str]:
    """The trace as "fsync queue", "rename incoming/x -> queue/y", "sendto", with paths relative to the spool."""
    told = []
    for entry in trace:
        _, _, call = entry.partition(" ")
        name, _, rest = call.strip().partition("(")
        paths = [part.split('"')[0].split(">")[0] for part in rest.split(f"{place}/")[1:]]
        told.append(" ".join([name.removesuffix("at2").removesuffix("at"), " -> ".join(paths)]).strip())
    return told


def test_admission_syncs_everything_before_the_rename_and_both_parents_after(place: Spool, tmp_path: Path) -> None:
    job = place.receive()
    job.upload.write_bytes(UPLOAD)
    trace = "fsync,fdatasync,?rename,renameat,renameat2,sendto"
    status, lines = strace(place.path, ADMIT, trace, "", tmp_path, (job.id,))
    assert status == 0
    (queued,) = ids(place, "queue")
    assert calls(lines, place.path) == [
        f"fsync incoming/{job.id}/upload",
        f"fsync incoming/{job.id}/job.json",
        f"fsync incoming/{job.id}",
        f"rename incoming/{job.id} -> queue/{queued}",
        "fsync queue",
        "fsync incoming",
        "sendto",
    ]


def test_result_json_is_written_after_all_else_is_synced_and_before_the_upload_goes(
    place: Spool, tmp_path: Path
) -> None:
    send(place)
    job = place.take()
    assert job is not None
    run(job)
    trace = "fsync,fdatasync,?rename,renameat,renameat2,?unlink,unlinkat"
    status, lines = strace(place.path, FINISH, trace, "", tmp_path)
    assert status == 0
    holding = f"running/{place.claims.path.name}"
    told = [call.replace(f"{holding}/{job.id}", "JOB") for call in calls(lines, place.path) if "ENOENT" not in call]
    kept = ["attempts", "console.log", "hello.img.zst", "job.json", "output.log"]
    assert sorted(told[:5]) == [f"fsync JOB/{name}" for name in kept]
    draft = told[5].removeprefix("fsync ")
    assert told[5:] == [
        f"fsync {draft}",
        f"rename {draft} -> JOB/result.json",
        f"unlink {draft}",  # there is none any more
        "fsync JOB",
        "unlink JOB/upload",
        "unlink JOB/disk.img",
        "unlink JOB/attempts",
        "unlink JOB/cancel",
        "fsync JOB",
        f"rename JOB -> done/{job.id}",
        "fsync done",
        f"fsync {holding}",
        f"unlink done/{job.id}/cancel",
    ]


# -- power loss ------------------------------------------------------------------------------------------------


@contextmanager
def mounted(image: Path, at: Path) -> Iterator[Path]:
    """An ext4 image file mounted. The journal commits only when a sync asks it to, hardly ever by itself."""
    at.mkdir()
    try:
        process.run(["mount", "-o", "loop,commit=600", image, at], timeout_s=LONG_S)
    except CommandError as error:
        pytest.skip(f"needs root and loop devices: {error}")
    try:
        yield at
    finally:
        process.run(["umount", at], timeout_s=LONG_S)


def test_every_acknowledged_job_survives_a_power_cut(tmp_path: Path) -> None:
    if os.geteuid() != 0 or process.find("mkfs.ext4") is None:
        pytest.skip("needs root and mkfs.ext4, to lose the power of a file system in a file")
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(16 * 2**20)
    process.run(["mkfs.ext4", "-q", image], timeout_s=LONG_S)
    heard: dict[str, list[str]] = {}
    step = 0
    with mounted(image, tmp_path / "live") as live, python(LIVE, live / "spool", "--step") as child:
        while words := line(child.stdout).split():
            heard.setdefault(words[0], []).append(words[1])
            step += 1
            (live / f"unsynced{step}").write_bytes(b"x")
            # The backing file is what the disk has been given: copied, it is what a power cut leaves.
            shutil.copyfile(image, tmp_path / "copy")
            with mounted(tmp_path / "copy", tmp_path / "after") as after:
                holds(Spool(after / "spool"), heard)
                assert not (after / f"unsynced{step}").exists(), "the copy holds what was never synced"
            (tmp_path / "after").rmdir()
            assert child.stdin is not None
            with suppress(BrokenPipeError):
                os.write(child.stdin.fileno(), b"\n")
        assert child.wait(LONG_S) == 0
    assert (len(heard["accepted"]), len(heard["finished"])) == (2, 2)
