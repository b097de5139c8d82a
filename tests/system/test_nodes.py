"""Promises of nodes: however one ends, each job has exactly one result, and nobody is mistaken about who lives."""

import ftplib
import json
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from construir_ftp import process
from construir_ftp.errors import ConstruirError
from construir_ftp.jobs import nodes
from construir_ftp.jobs.spool import Spool
from tests.support import machines
from tests.support.appliance import PASSWORD, Appliance, construir
from tests.support.farm import FARM, Node, node, results, wait_until
from tests.support.ftpclient import users_text
from tests.support.images import job_directory, run

# It ends once it is let, so that it is seen where a job is.
SLEEPS = b"#!/bin/sh\necho begun\nsleep 3\necho done\n"
HANGS = b"#!/bin/sh\necho begun\nsleep 1000\n"


# Most are about nodes, whatever their machines are: quick ones, where there are any.
EVERY_KIND = pytest.mark.parametrize("front", machines.KINDS, indirect=True, ids=["default", "user-mode"])
LIGHT = "light"
LIGHT_AT_LEAST = pytest.mark.parametrize(
    "front",
    [pytest.param("", marks=pytest.mark.slow("the same was seen with quick machines")), LIGHT],
    indirect=True,
    ids=["default", "light"],
)


@pytest.fixture(params=["uml"], ids=["user-mode"])
def front(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Appliance]:
    request.getfixturevalue("uml_base" if request.param == "uml" else "base")
    config = machines.light(FARM) if request.param == LIGHT else machines.config(request.param, FARM)
    with Appliance(tmp_path, config).running() as appliance:
        yield appliance


def image(place: Path, name: str, script: bytes, size: str = "4M", toml: str = "") -> Path:
    file, tree = place / f"{name}.img", job_directory(place / name, script)
    (tree / "construir.toml").write_text(toml)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, file, size)
    return file


def drain(front: Appliance, name: str) -> None:
    """Have jobs go elsewhere."""
    construir("node", "drain", name, f"--spool={front.spool}", check=True)


def resume(front: Appliance, name: str) -> None:
    """Have jobs go there again."""
    construir("node", "resume", name, f"--spool={front.spool}", check=True)


def has_begun(job: Path) -> bool:
    output = job / "output.log"
    return output.exists() and b"begun" in output.read_bytes()


@LIGHT_AT_LEAST
def test_jobs_run_wherever_a_slot_is_free_and_everybody_is_told_where(front: Appliance, tmp_path: Path) -> None:
    hangs = image(tmp_path, "hangs", HANGS)
    with node(front) as far:
        jobs = [front.submit(hangs) for _ in range(3)]
        wait_until(lambda: len(front.states()["running"]) == 2, front.log.read_text)
        (there,) = far.jobs()
        wait_until(lambda: has_begun(there), front.log.read_text)
        with front.session() as ftp:
            said: list[str] = []
            ftp.retrlines(f"RETR /running/{there.name}/output.log", said.append)
            assert said == ["begun"]
            assert sorted(ftp.nlst("/running")) == sorted(front.states()["running"])
            assert ftp.sendcmd(f"SITE STATUS {there.name}").startswith(f"211 {there.name} is running since ")
            assert "every machine is busy (2 of 2)" in ftp.sendcmd(f"SITE STATUS {jobs[2]}")
        told = json.loads(construir("status", "--json", f"--spool={front.spool}", check=True).stdout)
        assert {slot["node"] for slot in told["running"]} == {"far", "local"}
        status = construir("status", f"--spool={front.spool}", check=True).stdout
        assert "\nnode far: 1 of 1 machines run\n" in status
        wait_until(
            lambda: b"construir_nodes 2.0" in (front.spool / "site/metrics.prom").read_bytes(), front.log.read_text
        )
        assert "Node far" in (front.spool / "site/index.html").read_text()
        with front.session() as ftp:
            assert f"running: {there.name} on far since " in ftp.sendcmd("SITE QUEUE")
        board = construir("top", "--count=1", f"--spool={front.spool}", check=True)
        assert "on far" in board.stdout
        for job in jobs:
            Spool(front.spool).cancel(job)
        for job in jobs:
            assert front.wait(job)["status"] == "cancelled"
        assert far.stop() == 0
        front.wait_until_logged("node far is gone")
    assert far.holding() == []
    assert not list((front.spool / "running").glob("far.*"))


@EVERY_KIND
def test_job_of_a_node_that_is_killed_runs_elsewhere_once_its_lease_is_over(front: Appliance, tmp_path: Path) -> None:
    drain(front, "local")
    with node(front) as far:
        job = front.submit(image(tmp_path, "sleeps", SLEEPS))
        far.wait_for_job(has_begun)
        far.stop(signal.SIGKILL)
        resume(front, "local")
        result = front.wait(job)
    assert (result["status"], result["attempt"]) == ("success", 2)
    assert results(front) == [job]
    assert f"job {job}: node far says nothing any more, back in the queue" in front.log.read_text()


@LIGHT_AT_LEAST
def test_node_takes_jobs_once_it_is_admitted_and_ssh_keygen_proves_what_it_has_signed(
    front: Appliance, tmp_path: Path
) -> None:
    """With another key than the front's, and no more than a contributor has: allowed_signers, and the result."""
    drain(front, "local")
    config, asks = tmp_path / "far.toml", f"--spool={front.spool}"
    config.write_text(f'{front.config.read_text()}[trust]\nkey = "{tmp_path / "far.key"}"\n')
    with node(front, "far", config) as far:
        construir("node", "revoke", "far", asks, check=True)
        far.stop()
        (tmp_path / "far.key").unlink()
        far.start()
        job = front.submit(image(tmp_path, "sleeps", SLEEPS))
        wait_until(lambda: "not admitted" in construir("nodes", asks).stdout, far.log.read_text)
        assert (far.jobs(), (front.spool / "nodes/far/offer.json").exists()) == ([], False)
        construir("node", "admit", "far", asks, check=True)
        assert front.wait(job)["status"] == "success"
    done = front.spool / "done" / job
    with front.session() as ftp, (tmp_path / "allowed_signers").open("wb") as file:
        ftp.retrbinary("RETR /allowed_signers", file.write)
        assert "revoked_keys" in ftp.nlst("/")
    argv = f"ssh-keygen -Y verify -f {tmp_path}/allowed_signers -I construir -n construir -s SHA256SUMS.sig"
    run("sh", "-c", f"cd {done} && {argv} <SHA256SUMS")
    told = construir("verify", str(done), asks, check=True)
    assert "signed by node far, certified by SHA256:" in told.stdout
    construir("node", "revoke", "far", asks, check=True)
    refused = construir("verify", str(done), asks)
    assert (refused.returncode, "whose key was revoked" in refused.stderr) == (79, True)


def test_job_that_was_claimed_and_not_begun_is_not_lost(front: Appliance, tmp_path: Path) -> None:
    drain(front, "local")
    with node(front) as far:
        job = front.submit(image(tmp_path, "sleeps", SLEEPS))
        far.wait_for_job()
        far.stop(signal.SIGKILL)
        resume(front, "local")
        assert front.wait(job)["status"] == "success"
    assert results(front) == [job]


def test_node_that_is_killed_while_it_publishes_leaves_one_result(front: Appliance, tmp_path: Path) -> None:
    drain(front, "local")
    fills = b"#!/bin/sh\nhead -c 100M /dev/urandom >noise\n"
    with node(front) as far:
        job = front.submit(image(tmp_path, "fills", fills, "160M"))
        far.wait_for_job(lambda job: (job / "fills.img").exists())
        far.stop(signal.SIGKILL)
        resume(front, "local")
        assert front.wait(job)["status"] == "success"
    assert results(front) == [job]


def test_node_that_starts_again_gives_back_its_own_jobs_at_once(front: Appliance, tmp_path: Path) -> None:
    drain(front, "local")
    with node(front) as far:
        job = front.submit(image(tmp_path, "sleeps", SLEEPS))
        far.wait_for_job(has_begun)
        far.stop(signal.SIGKILL)
        far.start()
        result = front.wait(job)
        assert (result["status"], result["attempt"]) == ("success", 2)
        assert f"job {job}: found unfinished, back in the queue" in far.log.read_text()
    assert "says nothing any more" not in front.log.read_text()
    assert results(front) == [job]


@LIGHT_AT_LEAST
def test_node_that_comes_back_after_its_lease_publishes_nothing_and_starts_anew(
    front: Appliance, tmp_path: Path
) -> None:
    drain(front, "local")
    with node(front) as far:
        job = front.submit(image(tmp_path, "sleeps", SLEEPS))
        before = far.wait_for_job(has_begun)
        far.send(signal.SIGSTOP)
        front.wait_until_logged(f"job {job}: node far says nothing any more, back in the queue")
        resume(front, "local")
        assert front.wait(job)["attempt"] == 2
        far.send(signal.SIGCONT)
        far.wait_until_logged("its jobs were given to others, and it starts anew")
        front.wait_until_logged("node far is there", 2)
        assert [path.name for path in far.holding()] != [before.parent.name]
        drain(front, "local")
        after = front.submit(image(tmp_path, "after", SLEEPS))
        assert front.wait(after)["status"] == "success"
        assert f"job {after} of alice: taken, to run" in far.log.read_text()
    assert results(front) == sorted([job, after])


def test_nodes_go_on_while_the_front_is_dead_and_nobody_loses_jobs_by_its_absence(
    front: Appliance, tmp_path: Path
) -> None:
    drain(front, "local")
    with node(front) as far:
        job, later = (front.submit(image(tmp_path, name, SLEEPS)) for name in ("first", "later"))
        far.wait_for_job(has_begun)
        front.stop(signal.SIGKILL)
        wait_until(lambda: results(front) == sorted([job, later]), far.log.read_text)
        again = front.config.with_name("again.log")
        front.log = again
        front.start()
        front.wait_until_logged("node far is there")
        assert all(front.wait(done)["attempt"] == 1 for done in (job, later))


def test_drained_node_ends_its_job_and_takes_no_more(front: Appliance, tmp_path: Path) -> None:
    drain(front, "local")
    sleeps = image(tmp_path, "sleeps", SLEEPS)
    with node(front) as far:
        first = front.submit(sleeps)
        far.wait_for_job(has_begun)
        drain(front, "far")
        second = front.submit(sleeps)
        assert front.wait(first)["attempt"] == 1
        told = construir("nodes", f"--spool={front.spool}", check=True).stdout
        assert [line.split()[:2] for line in told.splitlines()[1:]] == [["far", "drained:"], ["local", "drained:"]]
        time.sleep(3)  # it looks for work more than once in it
        assert front.states()["queue"] == [second]
        resume(front, "far")
        assert front.wait(second)["status"] == "success"


def pid_of(node: Node) -> int:
    assert node.process is not None
    return node.process.pid


def test_node_that_can_open_no_file_for_a_while_goes_on_afterwards(front: Appliance, tmp_path: Path) -> None:
    drain(front, "local")
    said = "jobs can't be looked after: [Errno 24] Too many open files"
    with node(front) as far:
        before = resource.prlimit(pid_of(far), resource.RLIMIT_NOFILE)
        resource.prlimit(pid_of(far), resource.RLIMIT_NOFILE, (0, before[1]))
        far.wait_until_logged(said)
        job = front.submit(image(tmp_path, "sleeps", SLEEPS))
        time.sleep(3)  # it tries again more than once in it
        resource.prlimit(pid_of(far), resource.RLIMIT_NOFILE, before)
        far.wait_until_logged("jobs are looked after again")
        assert front.wait(job)["attempt"] == 1
        assert far.log.read_text().count(said) == 1
        assert far.stop() == 0


@contextmanager
def open_fails(node: Node, path: Path, at: int) -> Iterator[None]:
    """One open of this path fails, the one of that number, in the thread in which a node looks after jobs."""
    if process.find("strace") is None:
        pytest.skip("strace is not installed")
    fault = f"inject=openat:error=EMFILE:when={at}"
    argv = ["strace", "-p", str(pid_of(node)), "-o", os.devnull, "-P", str(path), "-e", "trace=openat", "-e", fault]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        try:
            assert any("attached" in line for line in tracer.stderr), "strace may not trace here"
            yield
        finally:
            tracer.terminate()


def test_node_loses_no_job_by_a_file_that_it_could_not_open(front: Appliance, tmp_path: Path) -> None:
    """Whatever it was about to do with one, also when it has just claimed it."""
    drain(front, "local")
    short, jobs = image(tmp_path, "short", b"#!/bin/sh\nexit 0\n"), []
    with node(front) as far:
        (holding,) = far.holding()
        for number in range(1, 11):
            with open_fails(far, holding, number):
                jobs.append(front.submit(short))
                assert front.wait(jobs[-1])["status"] == "success"
        said = far.log.read_text()
        assert said.count("jobs are looked after again") > 1
        assert "back in the queue, since this computer could not do what it takes" in said
        assert far.stop() == 0
    assert results(front) == sorted(jobs)


@pytest.mark.parametrize("front", [""], indirect=True, ids=["default"])
def test_node_has_a_name_that_nobody_else_has(front: Appliance) -> None:
    refused = construir("serve", "ftp", "--name=far", f"--spool={front.spool}")
    assert (refused.returncode, "--name is for the part node" in refused.stderr) == (2, True)
    for name in ("local", "front", "Far", "7th", "a.b"):
        refused = construir("serve", "node", f"--name={name}", f"--spool={front.spool}")
        assert (refused.returncode, "a node's name is" in refused.stderr) == (2, True)
    with node(front) as far:
        other = Node(front, "far")
        with pytest.raises(ConstruirError, match="another node far works on"), nodes.hold(front.spool, "far"):
            pass
        assert other.holding() == far.holding() != []


def test_door_promises_what_some_node_has_and_the_job_goes_there(front: Appliance, tmp_path: Path) -> None:
    large = image(tmp_path, "large", SLEEPS, toml='memory = "1200MiB"\naccelerator = "uml"\narchitecture = "amd64"')
    config, scratch = tmp_path / "far.toml", tmp_path / "scratch"
    scratch.mkdir()
    config.write_text(front.config.read_text().replace("[nodes]\n", f'[nodes]\nscratch = "{scratch}"\n'))
    front.stop()
    front.config.write_text(front.config.read_text().replace("[machine]\n", '[machine]\nmax_memory = "1GiB"\n'))
    front.start()
    with pytest.raises(ftplib.error_perm, match="memory: at most 1024 MiB can be had here"):
        front.submit(large)
    wait_until(lambda: nodes.offered(front.spool, "local"), front.log.read_text)
    for toml, why in (
        ('accelerator = "kvm"', "accelerator: machines of bookworm-amd64-uml run under uml here"),
        ('architecture = "s390x"', "architecture: expected one of amd64, arm64"),
        ('architecture = "riscv64"', "architecture: there is no base image bookworm-riscv64-uml here"),
    ):
        with pytest.raises(ftplib.error_perm, match=why):
            front.submit(image(tmp_path, toml.split('"')[1], SLEEPS, toml=toml))
    with node(front, config=config) as far:
        wait_until(lambda: nodes.offered(front.spool, "far"), far.log.read_text)
        job = front.submit(large)
        place = far.wait_for_job(has_begun)
        assert [path.name for path in scratch.glob("*/*/*")] == ["disk.img"]
        assert not (place / "disk.img").exists()
        assert front.wait(job)["memory_bytes"] == 1200 * 2**20
        assert list(scratch.glob("*/*")) == []
        assert f"job {job} of alice: taken, to run" in far.log.read_text()
        lines = construir("nodes", f"--spool={front.spool}", check=True).stdout.splitlines()
        assert lines[1].split()[:5] == ["far", "there", "0", "1", "1"]
        assert "bookworm-amd64-uml" in lines[1]
        assert "(uml)" in lines[1]
    assert list(scratch.iterdir()) == []
    wait_until(lambda: "far" not in nodes.living(front.spool), front.log.read_text)
    with pytest.raises(ftplib.error_perm, match="memory: at most 1024 MiB can be had here"):
        front.submit(large)


def test_contributors_share_all_nodes_by_their_weights(front: Appliance, tmp_path: Path) -> None:
    short, at = image(tmp_path, "short", b"#!/bin/sh\nexit 0\n"), f"--spool={front.spool}"
    (front.spool / "users.toml").write_text(users_text("alice", "bob", password=PASSWORD))
    construir("user", "set", "bob", "--weight=3", at, check=True)
    with node(front, "one") as one, node(front, "two") as two:
        for name in ("local", "one", "two"):
            drain(front, name)
        jobs = [front.submit(short, contributor="alice") for _ in range(4)]
        jobs += [front.submit(short, contributor="bob") for _ in range(6)]
        for name in ("one", "two"):
            resume(front, name)
        assert {front.wait(job, 600)["status"] for job in jobs} == {"success"}
        found = [
            re.findall(r"^(\S+ \S+) \S+ job \S+ of (\w+): taken, to run", log, re.MULTILINE) for log in logs(one, two)
        ]
    assert min(map(len, found)) > 1
    took = [contributor for _, contributor in sorted([*found[0], *found[1]])]
    assert len(took) == len(jobs)
    # One after the other it were two; without weights, four.
    assert 1 <= took[:8].count("alice") <= 3, took


def logs(*those: Node) -> list[str]:
    return [there.log.read_text() for there in those]


@pytest.mark.slow("forty machines")
def test_each_of_forty_jobs_on_two_nodes_has_exactly_one_result(front: Appliance, tmp_path: Path) -> None:
    script = b"#!/bin/sh\nexit 0\n"
    images = [image(tmp_path, f"job-{number}", script) for number in range(40)]
    with node(front, "one") as one, node(front, "two") as two:
        jobs = [front.submit(file) for file in images]
        killed = one.wait_for_job()
        one.stop(signal.SIGKILL)
        one.start()
        statuses = [front.wait(job, 1200)["status"] for job in jobs]
        assert statuses == ["success"] * len(jobs)
        assert results(front) == sorted(jobs)
        took = {name: log.read_text().count("to run") for name, log in (("one", one.log), ("two", two.log))}
        assert min(took.values()) > 0
        assert killed.name in jobs
    assert front.states()["running"] == []
