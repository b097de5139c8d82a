"""Machines: how they are put together, and that none outlives its deadline or its owner."""

import fcntl
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from construir_ftp.errors import MachineUnavailableError
from construir_ftp.jail import jail
from construir_ftp.machine import guest, qemu, vm
from construir_ftp.machine.ending import Assignment, Ending
from construir_ftp.machine.qemu_engine import QemuEngine
from construir_ftp.machine.shape import Shape
from tests.support import machines
from tests.support.belongings import Belongings, children, nothing_since
from tests.support.machines import LONG_S, assignment
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


def run(shape: Shape, task: Assignment, stop: socket.socket | None = None) -> Ending:
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
    assert "PCI" not in (tmp_path / "console.log").read_text(), "it has none, and nobody is to be alarmed by that"
    assert ending.usage.peak_memory_bytes > 2**20


def test_emulated_machine_starts_beside_a_user_mode_one_of_the_same_base_image(usual: Shape) -> None:
    """Which locks its root disk for reading (os_lock_file of the kernel's arch/um)."""
    with usual.base.root.open("rb") as root:
        fcntl.lockf(root, fcntl.LOCK_SH)
        with vm.Machine.start(usual) as machine:
            machine.wait_until_ready(LONG_S)


@pytest.mark.usefixtures("no_machine_left")
def test_machine_is_killed_at_its_deadline_and_who_runs_it_sleeps_until_then(shape: Shape, tmp_path: Path) -> None:
    before = time.thread_time()
    ending = run(shape, assignment(tmp_path, JOBS / "hangs", timeout_s=3))
    assert (ending.killed, ending.claims.started, ending.claims.exit_code) == ("timeout", True, None)
    assert time.thread_time() - before < 0.5


@pytest.mark.usefixtures("no_machine_left")
def test_machine_that_falls_silent_is_killed_at_the_idle_deadline(shape: Shape, tmp_path: Path) -> None:
    ending = run(shape, assignment(tmp_path, JOBS / "hangs", idle_timeout_s=1))
    assert (ending.killed, ending.claims.started, ending.claims.exit_code) == ("idle-timeout", True, None)


@pytest.mark.usefixtures("no_machine_left")
def test_machine_that_never_comes_up_is_killed_at_the_boot_deadline(shape: Shape, tmp_path: Path) -> None:
    ending = run(shape, assignment(tmp_path, JOBS / "hello", boot_timeout_s=0.02))
    assert (ending.killed, ending.took_order) == ("boot-timeout", False)


@pytest.mark.usefixtures("no_machine_left")
def test_what_a_machine_has_said_before_its_deadline_counts_however_late_it_is_heard(shape: Shape) -> None:
    with vm.Machine.start(shape) as machine:
        assert select.select([machine.engine.wires["control"]], [], [], 60)[0], "the guest is ready"
        machine.wait_until_ready(0)
        assert (machine.ending.killed, machine.ending.claims.ready) == (None, True)


# QEMU without the port that the guest is told by.
WITHOUT_CONTROL = """#!/bin/sh
for word; do
    shift
    case $word in virtserialport,chardev=control,*) word=virtio-rng-device ;; esac
    set -- "$@" "$word"
done
exec PROGRAM "$@"
"""


@pytest.mark.usefixtures("no_machine_left")
def test_guest_waits_for_a_port_that_comes_late(usual: Shape, tmp_path: Path) -> None:
    """As on a busy host, whose QEMU names its ports a while after the guest has asked."""
    qemu = tmp_path / "qemu"
    qemu.write_text(WITHOUT_CONTROL.replace("PROGRAM", usual.program))
    qemu.chmod(0o755)
    port = {"driver": "virtserialport", "chardev": "control", "name": guest.CONTROL_PORT}
    program = msgspec.structs.replace(usual, program=str(qemu))
    with QemuEngine.start(program) as engine, vm.Machine.following(program, engine) as machine:
        time.sleep(3)
        engine.monitor().ask("device_add", {**port, "id": "late"})
        machine.wait_until_ready(LONG_S)


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
