"""An appliance that was killed makes room for the next at once; a stop is heard in the midst of whatever is done."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from construir_ftp.jobs.spool import Spool
from tests.support import baseimages, belongings
from tests.support.appliance import Appliance, construir
from tests.support.ftpclient import wait_until

WITHOUT_JOBS = """
[spool]
min_free = "1MiB"
[images]
path = "{images}"
[machine]
warm = false
[runner]
slots = 1
[janitor]
every = "1h"
"""
WAITS = "waiting for its parts to end"
LONG_S = 60


@pytest.fixture
def appliance(tmp_path: Path) -> Iterator[Appliance]:
    with Appliance(tmp_path, WITHOUT_JOBS.format(images=tmp_path / "images")).running() as running:
        yield running


def kill(appliance: Appliance) -> None:
    assert appliance.process is not None
    appliance.process.kill()
    appliance.process.wait()


def begin(appliance: Appliance) -> "subprocess.Popen[bytes]":
    """Start it, and don't wait for it."""
    argv = [sys.executable, "-m", "construir_ftp", "serve", f"--port={appliance.port}"]
    argv += [f"--config={appliance.config}", f"--spool={appliance.spool}"]
    with appliance.log.open("ab") as log:
        return subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)


@pytest.fixture
def held(appliance: Appliance) -> Iterator[int]:
    """A part that doesn't end when its supervisor is killed, until it is told to go on."""
    pid = appliance.parts()["janitor"]
    os.kill(pid, signal.SIGSTOP)
    yield pid
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def test_an_appliance_that_was_killed_and_is_started_at_once_works(appliance: Appliance) -> None:
    for _ in range(2):
        kill(appliance)
        appliance.start()
        with appliance.session() as ftp:
            assert ftp.nlst("/done") == []


def test_it_waits_for_the_parts_of_the_one_before_and_says_so(appliance: Appliance, held: int) -> None:
    kill(appliance)
    impatient = begin(appliance)
    appliance.wait_until_logged(WAITS)
    impatient.kill()
    impatient.wait()
    again = appliance.process = begin(appliance)
    appliance.wait_until_logged(WAITS, times=2)
    logged = appliance.log.stat().st_size
    assert again.poll() is None
    os.kill(held, signal.SIGCONT)
    appliance.find_port(logged)


def test_a_stop_is_heard_while_it_waits(appliance: Appliance, held: int) -> None:
    kill(appliance)
    waiting = appliance.process = begin(appliance)
    appliance.wait_until_logged(WAITS)
    waiting.terminate()
    assert waiting.wait(LONG_S) == 0


def test_one_that_stops_and_is_killed_meanwhile_is_waited_for(appliance: Appliance, held: int) -> None:
    assert appliance.process is not None
    appliance.process.terminate()
    kill(appliance)
    appliance.process = begin(appliance)
    appliance.wait_until_logged(WAITS)
    logged = appliance.log.stat().st_size
    os.kill(held, signal.SIGCONT)
    appliance.find_port(logged)


def test_one_that_lives_is_named_and_not_waited_for(appliance: Appliance) -> None:
    second = construir("serve", "--port=0", f"--spool={appliance.spool}")
    assert second.returncode == 1
    assert appliance.process is not None
    assert f"that of process {appliance.process.pid}; stop it" in second.stderr
    assert WAITS not in second.stderr


@pytest.mark.parametrize(
    "claim",
    ["", "999999999 1\n", f"{os.getpid()} 1\n", "nonsense", "\x00\xff"],
    ids=["empty", "no process", "another process", "nonsense", "bytes"],
)
def test_what_an_appliance_of_long_ago_has_left_keeps_nobody_out(tmp_path: Path, claim: str) -> None:
    one = Appliance(tmp_path, WITHOUT_JOBS.format(images=tmp_path / "images"))
    one.spool.mkdir()
    for name in ("appliance", "lock"):
        (one.spool / name).write_text(claim)
    with one.running():
        assert WAITS not in one.log.read_text()


def part(name: str, appliance: Appliance) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-m", "construir_ftp", "serve", name, f"--config={appliance.config}"]
    with appliance.log.open("ab") as log:
        return subprocess.Popen([*argv, f"--spool={appliance.spool}"], stdout=log, stderr=log)


def test_a_stop_is_heard_while_a_base_image_is_proved(tmp_path: Path) -> None:
    images = tmp_path / "images"
    base = baseimages.publish(images, "bookworm-amd64", {"a": "a"})
    os.truncate(base.root, 2**40)  # nothing but zeros, and hours to digest
    one = Appliance(tmp_path, WITHOUT_JOBS.format(images=images))
    one.log.touch()
    runner = part("runner", one)
    wait_until(lambda: str(base.root.resolve()) in belongings.descriptors(runner.pid), "the base image is read")
    runner.terminate()
    assert runner.wait(LONG_S) == 0


def test_a_stop_is_heard_while_a_base_image_is_proved_once_more_for_a_job(tmp_path: Path) -> None:
    images = tmp_path / "images"
    base = baseimages.publish(images, "bookworm-amd64", {"a": "a"})
    one = Appliance(tmp_path, WITHOUT_JOBS.format(images=images))
    one.log.touch()
    runner = part("runner", one)
    one.wait_until_logged("machines run under")
    os.truncate(base.root, 2**40)
    damaged = one.spool / "queue/20261122T104102Z-7f3a-x/job.json"
    damaged.parent.mkdir()
    damaged.touch()
    Spool(one.spool).wake()
    wait_until(lambda: str(base.root.resolve()) in belongings.descriptors(runner.pid), "the base image is read")
    runner.terminate()
    assert runner.wait(LONG_S) == 0
    assert damaged.exists()


def is_reading(pid: int, path: Path) -> bool:
    """Whether its main thread waits in a call whose first argument is a descriptor of that file (proc(5))."""
    words = Path(f"/proc/{pid}/syscall").read_text().split()
    return len(words) > 2 and os.path.realpath(f"/proc/{pid}/fd/{int(words[1], 16)}") == str(path)


def test_a_stop_is_heard_while_results_are_read(tmp_path: Path) -> None:
    one = Appliance(tmp_path, WITHOUT_JOBS.format(images=tmp_path / "images"))
    result = one.spool / "done/20261122T104102Z-7f3a-x/result.json"
    result.parent.mkdir(parents=True)
    os.mkfifo(result)  # whoever reads it waits for ever
    one.log.touch()
    janitor = part("janitor", one)
    fifo = -1
    while fifo < 0:
        assert janitor.poll() is None
        with suppress(OSError):  # until there is a reader
            fifo = os.open(result, os.O_WRONLY | os.O_NONBLOCK)
    wait_until(lambda: is_reading(janitor.pid, result), "only a call that waits is interrupted")
    janitor.terminate()
    assert janitor.wait(LONG_S) == 0
    os.close(fifo)


MANY_THREADS = """
import os, signal, sys, threading
from construir_ftp.appliance import supervisor
for _ in range(30):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
with supervisor.listening() as stop:
    print("ready", flush=True)
    with stop.interrupting():
        os.read(int(sys.argv[1]), 1)
print("interrupted", flush=True)
"""


def test_a_process_that_was_stopped_and_goes_on_hears_in_its_main_thread_what_another_one_was_given() -> None:
    for _ in range(5):
        silent, kept = os.pipe()
        argv = [sys.executable, "-c", MANY_THREADS, str(silent)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, pass_fds=[silent], text=True) as waiting:
            assert waiting.stdout is not None
            try:
                assert waiting.stdout.readline() == "ready\n"
                for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGCONT):
                    waiting.send_signal(number)
                assert waiting.wait(LONG_S) == 0
                assert waiting.stdout.read() == "interrupted\n"
            finally:
                waiting.kill()
                os.close(silent)
                os.close(kept)


def test_parts_that_were_stopped_and_go_on_hear_a_stop(tmp_path: Path) -> None:
    config = WITHOUT_JOBS.replace("slots = 1", 'slots = 20\nscan_every = "1h"').format(images=tmp_path / "images")
    with Appliance(tmp_path, config).running() as appliance:
        appliance.wait_until_logged("running jobs of")
        first = set(appliance.parts().values())
        for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGCONT):
            for pid in first:
                os.kill(pid, number)
        wait_until(lambda: not first & set(appliance.parts().values()), "they have ended")
