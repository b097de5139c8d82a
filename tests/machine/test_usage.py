"""What is told of a machine's use: measured in real ones, that write and take memory by known amounts."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from construir_ftp.jobs.result import Usage
from construir_ftp.machine.template import Template
from construir_ftp.machine.vm import Machine
from tests.support import machines
from tests.support.images import job_directory
from tests.support.machines import assignment
from tests.support.places import JOBS

MIB = 2**20
# Direct, and twice over the same place: neither guest nor host may make less of it. Not zeros, which are not written.
WRITES = b"""#!/bin/sh
yes | head -c 8M >pattern
sync
for number in 1 2; do dd if=pattern of=data bs=1M oflag=direct conv=notrunc 2>&1; done
echo written
"""
WRITTEN_BYTES = 24 * MIB
TAKES = b"dd if=/dev/zero of=/dev/null bs=300M count=1 2>&1\n"
TAKEN_BYTES = 300 * MIB

Start = Callable[[], AbstractContextManager[Machine]]


@pytest.fixture(scope="module", params=["cold", "pooled", "user-mode"])
def start(request: pytest.FixtureRequest, images: Path, template: Template) -> Start:
    if request.param == "pooled":
        return template.waiting
    shape = machines.of_kind("uml" if request.param == "user-mode" else "", images)
    return lambda: Machine.start(shape)


def used(start: Start, place: Path, job: Path) -> Usage:
    with start() as machine:
        ending = machine.run(assignment(place / "machine", job, size="64M"))
    assert ending.claims.exit_code == 0
    return ending.usage


@pytest.fixture(scope="module")
def idle(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Usage:
    """That of a job which does next to nothing."""
    return used(start, tmp_path_factory.mktemp("idle"), JOBS / "hello")


@pytest.fixture(scope="module")
def busy(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Usage:
    """That of one which writes, and then takes memory."""
    place = tmp_path_factory.mktemp("busy")
    return used(start, place, job_directory(place / "job", WRITES + TAKES))


def test_written_bytes_are_all_that_the_job_wrote_and_little_else(idle: Usage, busy: Usage) -> None:
    assert idle.written_bytes is not None
    assert busy.written_bytes is not None
    assert idle.written_bytes < 2 * MIB
    assert WRITTEN_BYTES <= busy.written_bytes < WRITTEN_BYTES + 4 * MIB


def test_peak_memory_holds_what_the_job_took(idle: Usage, busy: Usage) -> None:
    assert MIB < idle.peak_memory_bytes < TAKEN_BYTES
    assert TAKEN_BYTES <= busy.peak_memory_bytes < idle.peak_memory_bytes + TAKEN_BYTES + 64 * MIB


def test_killed_machine_tells_what_it_used(start: Start, tmp_path: Path) -> None:
    job = job_directory(tmp_path / "hangs", WRITES + b"sleep 1000\n")
    task = assignment(tmp_path / "machine", job, size="64M")
    ours, theirs = socket.socketpair()
    with ours, theirs, start() as machine:
        killer = threading.Thread(target=send_when_said, args=(theirs, task.output, b"written"))
        killer.start()
        ending = machine.run(task, ours)
        killer.join()
    assert ending.killed == "stopped"
    assert ending.usage.written_bytes is not None
    assert ending.usage.written_bytes >= WRITTEN_BYTES
    assert ending.usage.cpu_seconds > 0.1
    assert ending.usage.peak_memory_bytes > 32 * MIB


def send_when_said(wire: socket.socket, log: Path, word: bytes) -> None:
    deadline = time.monotonic() + 60
    while not (log.exists() and word in log.read_bytes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    wire.send(b"!")


def test_peak_memory_is_qemus_whatever_started_it_takes_itself(start: Start, tmp_path: Path) -> None:
    ballast = b"x" * (700 * MIB)
    peak_bytes = used(start, tmp_path, JOBS / "hello").peak_memory_bytes
    assert MIB < peak_bytes < len(ballast) - 300 * MIB
