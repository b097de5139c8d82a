"""Machines: how they are put together, and that none outlives its deadline or its owner."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from construir_ftp.errors import MachineUnavailableError
from construir_ftp.jail import jail
from construir_ftp.machine import qemu, vm
from construir_ftp.machine.shape import Shape
from tests.support import machines
from tests.support.belongings import Belongings, children, nothing_since
from tests.support.machines import assignment
from tests.support.places import JOBS


@pytest.fixture(scope="module", params=machines.KINDS, ids=["usual", "user-mode"])
def shape(request: pytest.FixtureRequest, images: Path) -> Shape:
    """A small machine, of each kind."""
    return machines.of_kind(request.param, images)


@pytest.fixture(scope="module")
def usual(images: Path) -> Shape:
    """A small machine of QEMU's."""
    return machines.of_kind("", images)


@pytest.fixture
def no_machine_left() -> Iterator[None]:
    jail.host()  # found once, and kept open
    before = Belongings.now()
    yield
    nothing_since(before, "of a machine")


def run(shape: Shape, task: vm.Assignment, stop: socket.socket | None = None) -> vm.Ending:
    with vm.Machine.start(shape) as machine:
        return machine.run(task, stop)


def test_every_disk_is_raw_and_nothing_is_plugged_in_by_default(usual: Shape) -> None:
    words = qemu.argv(usual, {name: number for number, name in enumerate(qemu.WIRES, 3)})
    drives = [words[at + 1] for at, word in enumerate(words) if word == "-drive"]
    nodes = [words[at + 1] for at, word in enumerate(words) if word == "-blockdev"]
    assert all("format=raw" in drive and "snapshot=on" in drive for drive in drives)
    assert all(node.startswith(("driver=raw,", "driver=null-co,")) for node in nodes)
    assert {"-nodefaults", "-no-user-config", "-no-reboot", "-sandbox"} <= set(words)
    assert words[words.index("-nic") + 1] == "none"


@pytest.mark.usefixtures("no_machine_left")
def test_machine_that_ends_leaves_no_process_and_no_descriptor(shape: Shape, tmp_path: Path) -> None:
    ending = run(shape, assignment(tmp_path, JOBS / "hello"))
    assert (ending.claims.exit_code, ending.claims.clean, ending.killed) == (0, True, None)
    assert ending.usage.cpu_seconds > 0
    assert ending.usage.peak_memory_bytes > 2**20


@pytest.mark.usefixtures("no_machine_left")
def test_machine_is_killed_at_its_deadline(shape: Shape, tmp_path: Path) -> None:
    ending = run(shape, assignment(tmp_path, JOBS / "hangs", timeout_s=1))
    assert (ending.killed, ending.claims.started, ending.claims.exit_code) == ("timeout", True, None)


@pytest.mark.usefixtures("no_machine_left")
def test_machine_that_falls_silent_is_killed_at_the_idle_deadline(shape: Shape, tmp_path: Path) -> None:
    ending = run(shape, assignment(tmp_path, JOBS / "hangs", idle_timeout_s=1))
    assert (ending.killed, ending.claims.started, ending.claims.exit_code) == ("idle-timeout", True, None)


@pytest.mark.usefixtures("no_machine_left")
def test_machine_that_never_comes_up_is_killed_at_the_boot_deadline(shape: Shape, tmp_path: Path) -> None:
    ending = run(shape, assignment(tmp_path, JOBS / "hello", boot_timeout_s=0.02))
    assert (ending.killed, ending.took_order) == ("boot-timeout", False)


@pytest.mark.usefixtures("no_machine_left")
def test_last_words_of_qemu_are_one_line(usual: Shape, tmp_path: Path) -> None:
    qemu = tmp_path / "qemu"
    qemu.write_text("#!/bin/sh\nprintf 'no memory\\nno hope\\n' >&2\nexit 1\n")
    qemu.chmod(0o755)
    failing = msgspec.structs.replace(usual, program=str(qemu))
    refusal = pytest.raises(MachineUnavailableError, match=r"\(no memory; no hope\)$")
    with vm.Machine.start(failing) as machine, refusal:
        machine.wait_until_ready(60)


@pytest.mark.usefixtures("no_machine_left")
def test_machine_is_killed_when_its_owner_says_stop(shape: Shape, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        timer = threading.Timer(0.3, lambda: theirs.send(b"!"))
        timer.start()
        ending = run(shape, assignment(tmp_path, JOBS / "hangs"), ours)
        timer.join()
    assert ending.killed == "stopped"


@pytest.mark.usefixtures("no_machine_left")
def test_machine_that_was_started_and_never_used_is_ended(shape: Shape) -> None:
    with vm.Machine.start(shape):
        assert len(children()) == 1


@pytest.mark.usefixtures("no_machine_left")
def test_runner_sleeps_while_the_machine_works(shape: Shape, tmp_path: Path) -> None:
    before = time.thread_time()
    run(shape, assignment(tmp_path, JOBS / "hangs", timeout_s=3))
    assert time.thread_time() - before < 0.5
