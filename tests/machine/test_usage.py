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
TAKES = b"#!/bin/sh\ndd if=/dev/zero of=/dev/null bs=300M count=1 2>&1\n"
TAKEN_BYTES = 300 * MIB

Start = Callable[[], AbstractContextManager[Machine]]


@pytest.fixture(params=["cold", "pooled", "user-mode"])
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


def test_written_bytes_are_all_that_the_job_wrote_and_little_else(start: Start, tmp_path: Path) -> None:
    idle = used(start, tmp_path, JOBS / "hello").written_bytes
    busy = used(start, tmp_path, job_directory(tmp_path / "writes", WRITES)).written_bytes
    assert idle is not None
    assert busy is not None
    assert idle < 2 * MIB
    assert WRITTEN_BYTES <= busy < WRITTEN_BYTES + 4 * MIB


def test_peak_memory_holds_what_the_job_took(start: Start, tmp_path: Path) -> None:
    idle = used(start, tmp_path, JOBS / "hello").peak_memory_bytes
    busy = used(start, tmp_path, job_directory(tmp_path / "takes", TAKES)).peak_memory_bytes
    assert MIB < idle < TAKEN_BYTES
    assert TAKEN_BYTES <= busy < idle + TAKEN_BYTES + 64 * MIB


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
