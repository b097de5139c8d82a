"""QEMU's monitor, with a real QEMU at the other end; and with a hostile one, which only a plain socket can play."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from construir_ftp import architecture, process
from construir_ftp.errors import CommandError, MachineUnavailableError
from construir_ftp.machine import qmp
from construir_ftp.machine.disks import FdSet
from construir_ftp.machine.qmp import Monitor

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'
AGREED = b'{"return": {}}\r\n'


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def qemu(pair: tuple[socket.socket, socket.socket]) -> Iterator["subprocess.Popen[bytes]"]:
    """A QEMU without a machine, which is all its monitor needs."""
    program = architecture.find(architecture.native()).qemu
    argv = [program, "-M", "none", "-nodefaults", "-no-user-config", "-display", "none"]
    theirs = pair[1].fileno()
    running = process.spawn([*argv, *qmp.args(theirs)], pass_fds=[theirs])
    pair[1].close()
    yield running
    running.kill()
    running.wait()


@pytest.fixture
def monitor(pair: tuple[socket.socket, socket.socket], qemu: "subprocess.Popen[bytes]") -> Iterator[Monitor]:
    assert qemu.pid
    with Monitor(pair[0], 30) as monitor:
        yield monitor


def test_commands_are_answered(monitor: Monitor) -> None:
    assert monitor.ask("query-status")["running"] is True
    assert monitor.ask("stop") == {}
    assert monitor.ask("query-status")["status"] == "paused"


def test_refused_command_is_quoted_with_the_reason_and_the_next_one_works(monitor: Monitor) -> None:
    with pytest.raises(CommandError, match=r'"execute":"blockdev-del".*"node-name":"nobody".*Failed to find node'):
        monitor.ask("blockdev-del", {"node-name": "nobody"})
    assert monitor.ask("query-name") == {}


def test_event_that_came_before_it_was_waited_for_counts(monitor: Monitor) -> None:
    monitor.ask("stop")
    monitor.ask("cont")
    assert monitor.wait_for("STOP") == {}
    assert monitor.wait_for("RESUME") == {}


def test_event_with_other_data_is_passed_over(monitor: Monitor) -> None:
    monitor.ask("migrate-set-capabilities", {"capabilities": [{"capability": "events", "state": True}]})
    with Path(os.devnull).open("wb") as nothing:
        monitor.ask("getfd", {"fdname": "state"}, fds=[nothing.fileno()])
    monitor.ask("migrate", {"uri": "fd:state"})
    assert monitor.wait_for("MIGRATION", status="completed") == {"status": "completed"}


def test_file_is_handed_over_by_its_descriptor_alone(monitor: Monitor, tmp_path: Path) -> None:
    place = tmp_path / "disk.img"
    place.write_bytes(bytes(2**20))
    with place.open("r+b") as file:
        fdset = monitor.ask("add-fd", fds=[file.fileno()])["fdset-id"]
        assert not file.closed
    place.unlink()
    monitor.ask("blockdev-add", {"driver": "file", "node-name": "disk", "filename": f"/dev/fdset/{fdset}"})
    (node,) = monitor.ask("query-named-block-nodes")
    assert (node["node-name"], node["image"]["virtual-size"], node["ro"]) == ("disk", 2**20, False)


def test_event_that_never_comes_is_waited_for_no_longer_than_asked(monitor: Monitor) -> None:
    begun = time.monotonic()
    with pytest.raises(MachineUnavailableError, match="the event POWERDOWN"):
        monitor.wait_for("POWERDOWN", timeout_s=0.2)
    assert time.monotonic() - begun < 30


def test_stopped_qemu_costs_no_more_than_the_deadline(monitor: Monitor, qemu: "subprocess.Popen[bytes]") -> None:
    os.kill(qemu.pid, signal.SIGSTOP)
    with pytest.raises(MachineUnavailableError, match="an answer to query-name"):
        monitor.ask("query-name", timeout_s=0.2)


def test_end_of_qemu_is_noticed_at_once(monitor: Monitor, qemu: "subprocess.Popen[bytes]") -> None:
    qemu.kill()
    qemu.wait()
    with pytest.raises(MachineUnavailableError, match="query-name"):
        monitor.ask("query-name", timeout_s=30)


def test_qemu_goes_on_when_its_monitor_is_closed(monitor: Monitor, qemu: "subprocess.Popen[bytes]") -> None:
    monitor.close()
    with pytest.raises(subprocess.TimeoutExpired):
        qemu.wait(0.3)


def test_qemu_that_does_not_start_is_an_error_and_leaves_no_socket_open(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    pair[1].close()
    with pytest.raises(MachineUnavailableError, match="ended before it sent its greeting"):
        Monitor(pair[0])
    assert pair[0].fileno() == -1


def test_silence_instead_of_a_greeting_ends_at_the_deadline(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(MachineUnavailableError, match="its greeting"):
        Monitor(pair[0], timeout_s=0.1)


@pytest.mark.parametrize(
    "line",
    [b"hello\n", b"[]\n", b'{"event": 5}\n', b'{"return": {}, "data": 1}\n', b"\xff\n", b'{"return": ' + b"[" * 5000],
)
def test_nonsense_from_qemu_is_an_error_of_ours(pair: tuple[socket.socket, socket.socket], line: bytes) -> None:
    pair[1].sendall(GREETING + AGREED)
    with Monitor(pair[0], 5) as monitor:
        pair[1].sendall(line + b"\n")
        with pytest.raises(MachineUnavailableError, match="nonsense instead of an answer to query-status"):
            monitor.ask("query-status")


@pytest.mark.parametrize("answer", [b"{}", b'{"fdset-id": "x"}', b"[1]", b"null"])
def test_answer_of_another_shape_is_an_error_of_ours(pair: tuple[socket.socket, socket.socket], answer: bytes) -> None:
    pair[1].sendall(GREETING + AGREED + b'{"return": ' + answer + b"}\n")
    with Monitor(pair[0], 5) as monitor, pytest.raises(MachineUnavailableError, match="add-fd with nonsense"):
        monitor.ask_for(FdSet, "add-fd")


def test_refusal_is_quoted_in_one_line(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[1].sendall(GREETING + AGREED + b'{"error": {"desc": "no\\u001b[2J\\u0000\\nsuccess"}}\n')
    with Monitor(pair[0], 5) as monitor, pytest.raises(CommandError) as refused:
        monitor.ask("query-status")
    assert str(refused.value).isprintable()


def test_endless_line_is_given_up(pair: tuple[socket.socket, socket.socket]) -> None:
    endless = process.spawn(
        ["sh", "-c", f"printf '{GREETING.decode().strip()}\\n{{\"return\": {{}}}}\\n'; exec cat /dev/zero"],
        stdout=pair[1].fileno(),
    )
    pair[1].close()
    try:
        with Monitor(pair[0], 30) as monitor, pytest.raises(MachineUnavailableError, match="endless line"):
            monitor.ask("query-status")
    finally:
        endless.kill()
        endless.wait()


def test_flood_of_events_costs_bounded_memory_and_hides_no_answer(pair: tuple[socket.socket, socket.socket]) -> None:
    flood = b'{"event": "BLOCK_IO_ERROR", "data": {}}\n' * 1000
    pair[1].sendall(GREETING + AGREED + flood + b'{"return": "here"}\n')
    with Monitor(pair[0], 5) as monitor:
        assert monitor.ask("query-status") == "here"
        assert len(monitor._events) <= qmp._MAX_EVENTS
