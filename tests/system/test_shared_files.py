"""Two hosts share a spool by NFS, with the attribute caches that are there by default; each has a mount of its own.

What one has done the other knows when it looks, and what only one may do only one does. See docs/nodes.md.
"""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from construir_ftp import files, locks
from construir_ftp.appliance import shared_spool
from construir_ftp.appliance.finding import Finding
from construir_ftp.config import Config, SpoolSection
from construir_ftp.errors import ConstruirError
from construir_ftp.intake.file_writer import FileWriter, Flusher
from construir_ftp.jobs import ipc, nodes, pilots
from construir_ftp.jobs.pilots import Pilots
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.layers.store import Store
from construir_ftp.news.arrivals import Arrivals
from construir_ftp.site import changes
from tests.support import farm, nfs, nfs_guest
from tests.support.appliance import Appliance, construir
from tests.support.images import job_directory, run
from tests.support.nfs import Checks, inside
from tests.support.places import PROJECT
from tests.support.records import put_layer, send

RESULT = b'{"version": 1}'
LONG_S = 300.0
MIB = 2**20


@pytest.fixture(scope="module")
def both_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checks]:
    with nfs.hosts(tmp_path_factory.mktemp("hosts")) as machine:
        yield machine


def spools(front: Path, node: Path) -> tuple[Spool, Spool]:
    """One spool, as each host sees it."""
    return Spool.prepare(front / "spool"), Spool.find(node / "spool")


def take(spool: Spool) -> Job:
    job = spool.take()
    assert job is not None
    return job


# -- a job's way -----------------------------------------------------------------------------------------------


@inside
def test_what_becomes_of_a_job_on_one_host_the_other_knows_at_once(front: Path, node: Path) -> None:
    """Each looks before every step, so that whatever it may keep is what was so before."""
    at_front, at_node = spools(front, node)

    def seen(state: str) -> list[str]:
        names = at_front.names(state)
        assert at_node.names(state) == names
        assert list(at_node.records(state)) == list(at_front.records(state)) == names
        return names

    for number in range(3):
        assert seen("queue") == []
        job_id = send(at_front, after_s=number).id
        assert seen("queue") == [job_id]
        taken = take(at_node)
        assert (seen("queue"), seen("running")) == ([], [job_id])
        assert at_front.take() is None
        at_node.requeue(taken)
        assert (seen("queue"), seen("running")) == ([job_id], [])
        taken = take(at_node)
        at_node.finish(taken, RESULT)
        assert (seen("queue"), seen("running"), at_front.names("done")) == ([], [], [job_id])
        assert (at_front.state("done") / job_id / "result.json").read_bytes() == RESULT
        at_front.delete(Job(at_front.state("done") / job_id))
        assert at_node.names("done") == []


@inside
def test_a_job_that_came_right_after_another_is_seen(front: Path, node: Path) -> None:
    """Within one tick of the clock that the times of directories are of."""
    at_front, at_node = spools(front, node)
    for number in range(300):
        sent = send(at_front, after_s=number).id
        assert sent in at_node.records("queue"), number


@inside
def test_results_that_come_are_told_to_who_waits_for_them(front: Path, node: Path) -> None:
    at_front, at_node = spools(front, node)
    arrivals, watched = Arrivals(at_front), changes.watch(at_front.state("done"))
    for number in range(20):
        arrivals.look()
        watched.read()
        job_id = send(at_front, after_s=number).id
        at_node.finish(take(at_node), RESULT)
        assert job_id in (arrivals.look() or [])
        assert watched.read() is None, "all of it is to be looked at"
    watched.close()


@inside
def test_wish_for_a_jobs_end_is_known_to_the_host_that_runs_it(front: Path, node: Path) -> None:
    at_front, at_node = spools(front, node)
    for number in range(3):
        send(at_front, after_s=number)
        taken = take(at_node)
        assert not taken.is_cancelled()
        at_front.cancel(taken.id)
        assert taken.is_cancelled()
        at_node.finish(taken, RESULT)
        with pytest.raises(FileNotFoundError):
            at_front.cancel(taken.id)


@inside
def test_wish_for_the_end_of_a_job_that_waits_is_known_at_once(front: Path, node: Path) -> None:
    """Also to a host that has just seen that there was none."""
    at_front, at_node = spools(front, node)
    for number in range(3):
        job_id = send(at_front, after_s=number).id
        assert at_front.withdraw() == []
        at_node.cancel(job_id)
        (withdrawn,) = at_front.withdraw()
        assert withdrawn.id == job_id
        at_front.finish(withdrawn, RESULT)


@inside
def test_what_a_node_says_and_is_told_is_known_at_once(front: Path, node: Path) -> None:
    """Also while the server keeps open what is replaced."""
    spools(front, node)
    for count in range(20):
        nodes.beat(node / "spool", "far", nodes.Pulse(holding="far.00000000", count=count))
        told = nodes.pulse(front / "spool", "far")
        assert told is not None
        assert told.count == count
    for _ in range(3):
        assert nodes.why_drained(node / "spool", "far") == ""
        nodes.drain(front / "spool", "far", "it is hot")
        assert nodes.why_drained(node / "spool", "far") == "it is hot"
        nodes.resume(front / "spool", "far")
    nodes.leave(node / "spool", "far")
    assert nodes.pulse(front / "spool", "far") is None


@inside
def test_node_whose_jobs_were_taken_from_it_knows_that_and_publishes_nothing(front: Path, node: Path) -> None:
    at_front, at_node = spools(front, node)
    send(at_front)
    taken = take(at_node)
    assert not at_node.claims.are_lost()
    (again,) = at_front.take_back(at_front.path / "running" / at_node.claims.path.name)
    assert at_node.claims.are_lost()
    with pytest.raises(OSError, match=r"No such file or directory|Stale file handle"):
        at_node.finish(taken, RESULT)
    assert (at_front.names("queue"), at_front.names("done")) == ([again.id], [])
    # What it had written a result for is published.
    taken = take(at_front)
    files.replace_durably(taken.result, RESULT)
    another = Spool.find(at_node.path)
    assert another.take_back(another.path / "running" / at_front.claims.path.name) == []
    assert at_front.names("done") == [again.id]


CLAIM = """
import sys
from pathlib import Path
from construir_ftp.jobs.spool import Spool
spool = Spool.find(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
while (job := spool.take()) is not None:
    print(job.id, flush=True)
"""
JOBS_A_TIME = 50


def claimants(places: tuple[Path, Path]) -> list["subprocess.Popen[str]"]:
    return [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM, str(place)],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for place in places
    ]


def claimed_by_both(front: Path, node: Path, count: int) -> list[str]:
    """Have two processes, one of each host, take the jobs that wait, at the same time; what they took, of both."""
    at_front, _ = spools(front, node)
    sent = {send(at_front, after_s=number).id for number in range(count)}
    both = claimants((front / "spool", node / "spool"))
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=LONG_S)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert at_front.names("queue") == []
    assert set(at_front.names("running")) >= sent
    return [name for names in said for name in names]


@inside
def test_of_two_hosts_that_take_the_same_jobs_one_has_each(front: Path, node: Path) -> None:
    found = claimed_by_both(front, node, JOBS_A_TIME)
    assert len(found) == len(set(found)) == JOBS_A_TIME


@pytest.mark.slow("a thousand jobs that two hosts both try to take")
@inside
def test_of_two_hosts_that_take_the_same_thousand_jobs_one_has_each(front: Path, node: Path) -> None:
    for place in map(str, range(1000 // JOBS_A_TIME)):
        (front / place).mkdir()
        found = claimed_by_both(front / place, node / place, JOBS_A_TIME)
        assert len(found) == len(set(found)) == JOBS_A_TIME


# -- all of it -------------------------------------------------------------------------------------------------

WHOLE = """
[spool]
min_free = "64MiB"
[images]
path = "/var/lib/construir/images"
[machine]
warm = false
accelerator = "tcg"
memory = "256MiB"
scratch = "256MiB"
timeout = "10min"
boot_timeout = "5min"
[runner]
slots = 1
[nodes]
admit = ["*"]
"""
SCRIPT = b"#!/bin/sh\necho hello from $(uname -n)\necho made >made\n"


@pytest.mark.slow("QEMU emulates machines inside a user-mode kernel: minutes")
@inside
def test_job_by_ftp_to_one_host_has_its_result_there_when_it_is_run_by_it_and_when_the_other_runs_it(
    front: Path, node: Path
) -> None:
    with Appliance(front, WHOLE, up_s=LONG_S).running() as appliance:
        image = image_of(job_directory(Path("/root/job"), SCRIPT))
        assert ended(appliance, appliance.submit(image)) == "success"
        construir("node", "drain", "local", f"--spool={appliance.spool}", check=True)
        with farm.node(Appliance(node, WHOLE), "far") as far:
            job_id = appliance.submit(image)
            assert ended(appliance, job_id) == "success"
            assert job_id in far.log.read_text()
            assert appliance.fetch(job_id, "output.log").startswith(b"hello from ")
    assert appliance.states()["running"] == []


def ended(appliance: Appliance, job_id: str) -> str:
    """How a job did, once it has come to its end."""
    return str(appliance.wait(job_id, LONG_S)["status"])


def image_of(tree: Path) -> Path:
    file = tree.with_name("hello.img")
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, file, "8M")
    return file


# -- locks -----------------------------------------------------------------------------------------------------


@inside
def test_a_lock_is_one_hosts_at_a_time(front: Path, node: Path) -> None:
    for ours, theirs in ((front / "lock", node / "lock"), (node / "lock", front / "lock")):
        with locks.held(ours):
            assert locks.is_held(theirs)
            with pytest.raises(BlockingIOError), locks.held(theirs, wait=False):
                pass
        assert not locks.is_held(theirs)
        with locks.held(theirs, wait=False):
            pass


@inside
def test_a_spool_has_one_runner_of_both_hosts(front: Path, node: Path) -> None:
    at_front, at_node = spools(front, node)
    with at_front.lock():
        assert at_node.is_locked()
        with pytest.raises(ConstruirError, match="another runner already works on "), at_node.lock():
            pass
    with at_node.lock(), pytest.raises(BlockingIOError), ipc.hold(at_front.path / "lock"):
        pass


@inside
def test_a_lock_that_its_holder_removes_is_not_taken_for_the_new_one(front: Path, node: Path) -> None:
    for _ in range(20):
        with locks.held(front / "lock"):
            (front / "lock").unlink()
            with locks.held(node / "lock", wait=False):
                assert locks.is_held(front / "lock")


HOLD = """
import sys
from pathlib import Path
from construir_ftp import locks
with locks.scratch_directory(Path(sys.argv[1]), "work-") as place:
    (place / "disk.img").write_text("large")
    print(place.name, flush=True)
    sys.stdin.read()
"""


@contextmanager
def worker(place: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A process that works in a directory below `place`, and what that is called."""
    argv = [sys.executable, "-c", HOLD, str(place)]
    with subprocess.Popen(argv, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()


@inside
def test_place_that_is_worked_in_on_one_host_the_other_leaves_alone_until_its_owner_is_killed(
    front: Path, node: Path
) -> None:
    with worker(node) as (process, name):
        with locks.scratch_directory(front, "work-"):
            assert (front / name / "disk.img").exists()
        process.kill()
    with locks.scratch_directory(front, "work-"):
        assert not files.is_there(node / name)
    assert list(front.iterdir()) == []


GONE_S = 60.0


@pytest.mark.slow("a host has to be silent for longer than NFS's lease")
@inside
def test_lock_of_a_host_that_is_gone_is_free_after_the_servers_lease(front: Path, node: Path) -> None:
    """As that of a computer that dies: it is not there when its lock is given to another one, or its process ends."""
    with worker(node) as (process, name):
        lock = front / f"{name}.lock"
        assert locks.is_held(lock)
        nfs_guest.run("ip", "link", "set", "node", "down")
        try:
            deadline_s = time.monotonic() + GONE_S
            while locks.is_held(lock):
                assert time.monotonic() < deadline_s
                time.sleep(0.5)
            with ipc.hold(lock):
                pass
        finally:
            nfs_guest.run("ip", "link", "set", "node", "up")
            process.kill()


# -- layers ----------------------------------------------------------------------------------------------------


@inside
def test_layer_that_one_host_uses_the_other_does_not_remove(front: Path, node: Path) -> None:
    at_front, at_node = Store(front), Store(node)
    put_layer(at_front, "tool")
    ours, theirs = at_front.find("tool"), at_node.find("tool")
    assert ours is not None
    assert theirs is not None
    with at_node.hold([theirs]):
        with at_front.hold([ours]):
            pass
        assert not at_front.remove(ours)
    assert at_front.remove(ours)
    with pytest.raises(ConstruirError, match="layer tool has just been deleted"), at_node.hold([theirs]):
        pass
    assert list(node.iterdir()) == []


@inside
def test_layer_that_one_host_publishes_again_the_other_finds_at_once(front: Path, node: Path) -> None:
    """By a name that it has looked for before, and found nothing, or another version."""
    at_front, at_node = Store(front), Store(node)
    assert at_front.find("tool") is None
    for number in range(20):
        put_layer(at_node, f"tool@{number}")
        found = at_front.find("tool")
        assert found is not None
        assert found.name == f"tool@{number}"


# -- files -----------------------------------------------------------------------------------------------------


@inside
def test_upload_for_which_no_room_can_be_set_aside_is_whole_on_the_other_host(front: Path, node: Path) -> None:
    flusher, size_bytes = Flusher(), 0
    writer = FileWriter(front / "upload", os.O_CREAT | os.O_EXCL, flusher)
    digest = hashlib.sha256()
    for number in range(40):
        piece = bytes([number]) * MIB
        digest.update(piece)
        writer.write(piece, 100 * MIB)
        size_bytes += MIB
    writer.settle(durable=True)
    flusher.close()
    assert (node / "upload").stat().st_size == size_bytes
    assert files.sha256(node / "upload") == digest.hexdigest()


@inside
def test_result_that_is_deleted_while_it_is_read_is_gone_from_done_and_soon_for_good(front: Path, node: Path) -> None:
    at_front, at_node = spools(front, node)
    send(at_front)
    done = at_node.finish(take(at_node), RESULT)
    with done.result.open("rb") as reader:
        at_node.delete(done)
        assert at_front.names("done") == at_node.names("done") == []
        assert reader.read() == RESULT
        at_node.sweep_trash()
    at_node.sweep_trash()
    assert list(at_front.state("trash").iterdir()) == []


@inside
def test_result_that_one_host_deletes_while_the_other_reads_it_is_gone(front: Path, node: Path) -> None:
    at_front, at_node = spools(front, node)
    send(at_front)
    done = at_node.finish(take(at_node), RESULT)
    with done.result.open("rb"):
        at_front.delete(Job(at_front.state("done") / done.id))
        assert at_node.names("done") == []
        assert list(at_front.state("trash").iterdir()) == []


@inside
def test_what_one_host_replaces_the_other_reads_whole_and_new(front: Path, node: Path) -> None:
    for number in range(50):
        files.replace(front / "status.json", f"{number}".encode() * 1000)
        assert files.read_anew(node / "status.json") == f"{number}".encode() * 1000


@inside
def test_what_is_known_of_pilots_on_one_host_the_other_knows(front: Path, node: Path) -> None:
    for number in range(50):
        pilots.write(front, Pilots(trouble=f"trouble {number}"))
        assert pilots.read(node).trouble == f"trouble {number}"


@inside
def test_attempts_at_a_job_count_wherever_they_were_made(front: Path, node: Path) -> None:
    at_front, at_node = spools(front, node)
    send(at_front)
    for number in range(0, 20, 2):
        for other, spool in ((at_front, at_node), (at_node, at_front)):
            taken = take(spool)
            assert taken.attempts() == number + (spool is at_front)
            taken.count_attempt()
            spool.requeue(taken)
            (waiting,) = other.jobs("queue")
            assert waiting.attempts() == number + (spool is at_front) + 1


# -- construir check -------------------------------------------------------------------------------------------


def checked(spool: Path) -> list[Finding]:
    """What a check finds in a spool, with nothing left behind."""
    found = list(shared_spool.findings(Config(spool=SpoolSection(path=str(spool)))))
    assert list(spool.iterdir()) == []
    return found


@inside
def test_check_finds_that_nfs_does_what_nodes_ask_for(front: Path, node: Path) -> None:
    for host in (front, node):
        (one,) = checked(host)
        assert (one.subject, one.state) == ("file system", "ok"), one


@contextmanager
def exported(options: str) -> Iterator[None]:
    """What is shared, exported otherwise while the context lasts."""
    nfs_guest.run("exportfs", "-o", options, f"*:{nfs_guest.EXPORTED}")
    try:
        yield
    finally:
        nfs_guest.run("exportfs", "-o", nfs_guest.EXPORT, f"*:{nfs_guest.EXPORTED}")


@inside
def test_check_finds_that_root_is_squashed(front: Path, node: Path) -> None:
    with exported(nfs_guest.EXPORT.replace("no_root_squash", "root_squash")):
        (one,) = checked(node)
        assert one.state == "problem"
        assert "root can't write" in one.text
        assert "no_root_squash" in one.remedy
        (nfs_guest.EXPORTED / front.name).chmod(0o777)
        (one,) = checked(node)
        assert (one.subject, one.state) == ("file system: owner", "problem")
        assert "what user 0 makes there belongs to user 65534" in one.text
        assert "no_root_squash" in one.remedy
    assert [one.state for one in checked(node)] == ["ok"]


@inside
def test_check_finds_that_nfs_is_mounted_so_that_hosts_can_not_rely_on_it(front: Path, node: Path) -> None:
    with mounted("front", "vers=4.0,clientaddr=10.0.0.2,soft,nocto", "nfs4", "/") as place:
        found = {one.state: one for one in checked(place / front.name)}
    assert "NFS is mounted with nocto, soft" in found["problem"].text
    assert found["problem"].remedy == "mount it hard, without nocto, soft"
    assert "NFS 4.0 was not tried" in found["warning"].text


@contextmanager
def mounted(host: str, *how: str) -> Iterator[Path]:
    """What is shared, as a host has it that mounts it otherwise while the context lasts."""
    place = Path("/srv", f"{host}-otherwise")
    place.mkdir(exist_ok=True)
    nfs_guest.run(*nfs_guest.mount_words(host, place, *how))
    try:
        yield place
    finally:
        nfs_guest.run("umount", place)


NFS_3 = ("vers=3,proto=tcp,mountproto=tcp,nolock", "nfs", str(nfs_guest.EXPORTED))


@inside
def test_check_finds_that_hosts_by_nfs_3_do_not_see_each_change(front: Path, node: Path) -> None:
    """One that is made within the same tick of the server's clock as another, which the other host has just seen."""
    with mounted("front", *NFS_3) as ours, mounted("node", *NFS_3) as theirs:
        found = checked(theirs / front.name)
        at_front, at_node = spools(ours / front.name, theirs / front.name)
        sent = (send(at_front, after_s=number).id for number in range(300))
        assert not all(job_id in at_node.records("queue") for job_id in sent)
    (old,) = [one for one in found if "NFS 3 " in one.text]
    assert (old.state, old.remedy) == ("problem", "mount it with vers=4.1 or newer")
