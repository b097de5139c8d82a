"""Machines stand still while the operator, or whoever else wants the computer, says so; nothing is lost by it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from construir_ftp.image.baseimage import BaseImage
from construir_ftp.runner.owner import _Times
from tests.support import images, machines
from tests.support.appliance import CONFIG, Appliance, construir

_PATIENCE_S = 300
# Longer than a job may be silent.
_PAUSE_S = 24
_SETTLED_S = 3
_COUNTS = b"#!/bin/sh\nfor i in 0 1 2 3 4 5 6 7 8 9; do echo $i; sleep 1; done\n"
_USUAL = pytest.mark.slow("a user-mode machine is seen to do the same, and a usual one to stand still, by the others")
_SILENT = 'timeout = "10min"\nidle_timeout = "20s"'


def appliance(place: Path, runner: str = "", *, is_light: bool = False) -> Appliance:
    """One with a slot, whose jobs may not be silent for long."""
    config = (
        CONFIG.replace('timeout = "10min"', _SILENT, 1)
        .replace('"60s"', '"10min"')
        .replace("slots = 2", f"slots = 1\n{runner}")
    )
    return Appliance(place, machines.light(config) if is_light else config)


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    """A job that prints a line each second, for ten."""
    job = images.job_directory(tmp_path / "counts", _COUNTS)
    construir("pack", job, "-o", tmp_path / "counts.img.zst", "--space", "1MiB", check=True)
    return tmp_path / "counts.img.zst"


def operate(there: Appliance, *words: str) -> str:
    return construir(*words, f"--spool={there.spool}", f"--config={there.config}", check=True).stdout


def status(there: Appliance) -> dict[str, Any]:
    """What `construir status` tells a script."""
    told: dict[str, Any] = json.loads(operate(there, "status", "--json"))
    return told


def wait_until(is_so: Callable[[], object], there: Appliance) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, there.log.read_text()[-4000:]
        time.sleep(0.1)


def standing(runner: int) -> set[int]:
    """The processes below the runner that are stopped."""
    found, ours = set(), {runner}
    for path in sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda path: int(path.parent.name)):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) in ours:
            ours.add(int(path.parent.name))
            found |= {int(path.parent.name)} if state == "T" else set()
    return found


def settled(output: Path) -> bytes:
    """What is in a file once nothing has come for some seconds: what was printed last may be under way."""
    before = None
    while (found := output.read_bytes()) != before:
        before = found
        time.sleep(_SETTLED_S)
    return found


@pytest.mark.parametrize("is_light", [pytest.param(False, marks=_USUAL), True], ids=["usual", "light"])
def test_paused_job_stands_still_with_its_deadlines_and_then_succeeds(
    tmp_path: Path, base: BaseImage, counts: Path, is_light: bool
) -> None:
    with appliance(tmp_path, is_light=is_light).running() as there:
        job = there.submit(counts)
        there.wait_until_running(job)
        assert (
            operate(there, "pause") == "machines stand still, and no jobs are started; go on with: construir resume\n"
        )
        wait_until(lambda: standing(there.parts()["runner"]), there)
        wait_until(lambda: status(there)["paused"] == "the operator has paused it", there)
        output = there.place(job) / "output.log"
        before, began_s = settled(output), time.monotonic()
        waiting = there.submit(counts)
        with there.session() as ftp:
            assert f"{job} is running since " in (told := ftp.sendcmd(f"SITE STATUS {job}"))
            assert "; the operator has paused it; see /running/" in told
            told = ftp.sendcmd(f"SITE STATUS {waiting}")
        assert told.endswith("number 1 in the queue; no job is run at the moment: the operator has paused it")
        assert status(there)["accepts_uploads"]
        assert "it is paused until: construir resume\n" in operate(there, "status")
        time.sleep(max(0, began_s + _PAUSE_S - time.monotonic()))
        assert output.read_bytes() == before
        assert operate(there, "resume") == "machines go on, and jobs are started again\n"
        result = there.wait(job)
        assert (result["status"], result["attempt"]) == ("success", 1), result["reason"]
        assert result["measured"]["paused_seconds"] > _PAUSE_S
        assert there.fetch(job, "output.log") == b"0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n"
        waited = there.wait(waiting)
        assert (waited["status"], waited["measured"]["paused_seconds"]) == ("success", 0)


def test_stopped_machines_end_with_a_killed_runner_and_their_job_is_run_once_it_goes_on(
    tmp_path: Path, base: BaseImage, counts: Path
) -> None:
    with appliance(tmp_path).running() as there:
        job = there.submit(counts)
        there.wait_until_running(job)
        operate(there, "pause")
        runner = there.parts()["runner"]
        wait_until(lambda: standing(runner), there)
        stood = standing(runner)
        os.kill(runner, signal.SIGKILL)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in stood), there)
        there.wait_until_logged(f"job {job}: found unfinished, back in the queue")
        there.wait_until_logged("paused, machines stand still: the operator has paused it", 2)
        operate(there, "resume")
        there.wait_until_running(job)
        operate(there, "pause")
        there.wait_until_logged("paused, machines stand still", 3)
        assert there.stop() == 0
        assert there.states()["queue"] == [job], "a stop does not wait for what stands still"
        there.start()
        operate(there, "resume")
        result = there.wait(job)
        assert (result["status"], result["attempt"]) == ("success", 2), "only the kill has cost an attempt"


@contextmanager
def busy_processors() -> Iterator[None]:
    """Within, others want all there is of the processors."""
    with ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            child = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(child.kill)
        yield


@pytest.mark.slow("it takes a host on which nothing else runs")
def test_jobs_run_only_while_others_leave_the_processors_alone(tmp_path: Path, base: BaseImage, counts: Path) -> None:
    before = _Times.now()
    time.sleep(5)
    if (share := _Times.now().share_of_others(before)) > 0.5:
        pytest.skip(f"others take {share:.0%} of this host's processors already")
    with appliance(tmp_path, runner='when = "idle"\nbusy = 80\naway = "0s"').running() as there:
        with busy_processors():
            job = there.submit(counts)
            there.wait_until_logged("paused, machines stand still: its computer is busy with other work")
            why = "no job is run at the moment: its computer is busy with other work"
            wait_until(lambda: status(there)["why"] == why, there)
            assert there.states()["queue"] == [job]
        there.wait_until_running(job)
        with busy_processors():
            there.wait_until_logged("paused, machines stand still: its computer is busy with other work", 2)
            wait_until(lambda: standing(there.parts()["runner"]), there)
        assert there.wait(job, _PATIENCE_S)["status"] == "success"


_OWN_TERMINALS = """
mount -t devpts -o newinstance,ptmxmode=666 devpts /dev/pts && mount --bind /dev/pts/ptmx /dev/ptmx && exec "$@"
"""
# Types at a terminal, among the terminals of the appliance, which are no others.
_TYPES = """
import os
ours, theirs = os.openpty()
os.write(ours, b"ls\\n")
os.read(theirs, 10)
input()
"""


@pytest.mark.root("terminals that nobody else types at")
@pytest.mark.slow("it waits until nobody has typed for a while")
def test_machines_stand_still_and_give_way_while_somebody_types(tmp_path: Path, base: BaseImage, counts: Path) -> None:
    there = appliance(tmp_path, runner='when = "idle"\nbusy = 100\naway = "20s"\npriority = "low"')
    with there.running(("unshare", "--mount", "--propagation=private", "sh", "-c", _OWN_TERMINALS, "sh")):
        job = there.submit(counts)
        # At the lowest priority a machine takes long to come up where other tests run.
        wait_until((lambda: (there.place(job) / "output.log").exists()), there)
        assert "paused, machines stand still: it is being seen whether its computer is idle" in there.log.read_text()
        inside = ["nsenter", f"--target={there.parts()['runner']}", "--mount", sys.executable, "-c", _TYPES]
        with subprocess.Popen(inside, stdin=subprocess.PIPE):
            there.wait_until_logged("paused, machines stand still: somebody is at work at its computer")
            wait_until(lambda: standing(there.parts()["runner"]), there)
            stood = standing(there.parts()["runner"])
            assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in stood} == {19}
            assert {images.run("ionice", "-p", str(pid)) for pid in stood} == {"idle\n"}
        # That a job which stood still succeeds is seen at a priority that brings it to its end where other tests run.
        there.wait_until_logged("machines go on", 2)
        wait_until(lambda: not standing(there.parts()["runner"]), there)


def test_machines_stand_still_outside_of_the_hours(tmp_path: Path, base: BaseImage, counts: Path) -> None:
    long_ago = time.strftime("%H:%M", time.localtime(time.time() - 7200))
    ago = time.strftime("%H:%M", time.localtime(time.time() - 3600))
    with appliance(tmp_path, runner=f'hours = "{long_ago}-{ago}"').running() as there:
        job = there.submit(counts)
        why = f"no job is run at the moment: it works from {long_ago} to {ago} only"
        wait_until(lambda: status(there)["why"] == why, there)
        with there.session() as ftp:
            assert ftp.sendcmd(f"SITE STATUS {job}").endswith(why)
