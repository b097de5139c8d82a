"""Promises of pace: an upload that only holds its place loses it, by hundreds of bytes a second or by the hour."""

import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from pyftpdlib.ioloop import _CallLater

from construir_ftp.ftp.ioloop import Loop
from tests.support import images
from tests.support.ftpclient import Control, serving, wait_until

JOB = images.image("ext2", 2**20)


def trickle(data: socket.socket, control: Control, chunk: bytes) -> str:
    """Send a chunk every 20 ms until there is a reply, and return that."""
    control.socket.setblocking(False)
    with suppress(ConnectionError):
        while True:
            data.sendall(chunk)
            threading.Event().wait(0.02)
            with suppress(BlockingIOError):
                control.socket.recv(1, socket.MSG_PEEK)
                break
    control.socket.setblocking(True)
    return control.reply()


@pytest.mark.steady(0.3)
def test_upload_of_a_byte_now_and_then_is_broken_off(tmp_path: Path) -> None:
    with serving(tmp_path, min_upload_rate="1KiB", upload_rate_window="500ms") as house, house.connect() as alice:
        data = alice.log_in().begin("/queue/x.img")
        assert trickle(data, alice, b"x").startswith("426 Slower than 1024 bytes per second, over 0.5 s")
        data.close()
        assert alice.store("/queue/x.img", JOB).startswith("226"), "the session goes on"


def test_upload_that_begins_well_and_then_slows_down_is_broken_off(tmp_path: Path) -> None:
    with serving(tmp_path, min_upload_rate="1KiB", upload_rate_window="500ms") as house, house.connect() as alice:
        data = alice.log_in().begin("/queue/x.img")
        data.sendall(JOB[:-1])
        assert trickle(data, alice, b"x").startswith("426 Slower")
        data.close()


@pytest.mark.steady(0.5)
def test_upload_whose_rate_is_enough_is_left_alone(tmp_path: Path) -> None:
    with serving(tmp_path, min_upload_rate="1KiB", upload_rate_window="1s") as house, house.connect() as alice:
        data = alice.log_in().begin("/queue/x.img")
        for begin in range(0, len(JOB), 2**15):
            data.sendall(JOB[begin : begin + 2**15])
            threading.Event().wait(0.07)
        data.close()
        assert alice.reply().startswith("226")


def test_upload_that_is_not_done_in_time_is_broken_off_however_fast_it_is(tmp_path: Path) -> None:
    with serving(tmp_path, upload_timeout="700ms") as house, house.connect() as alice:
        data = alice.log_in().begin("/queue/x.img")
        assert trickle(data, alice, images.image("ext2", 2**25)[: 2**14]).startswith("426 Not done after 0.7 s")
        data.close()
        wait_until(lambda: not house.names("queue"), "it is no job")


def test_no_rate_is_asked_for_where_none_is_configured(tmp_path: Path) -> None:
    with serving(tmp_path, min_upload_rate="0B", upload_rate_window="100ms") as house, house.connect() as alice:
        data = alice.log_in().begin("/queue/x.img")
        data.sendall(JOB[:5000])
        threading.Event().wait(0.5)
        data.sendall(JOB[5000:])
        data.close()
        assert alice.reply().startswith("226")


def test_call_that_another_one_cancels_is_not_made(caplog: pytest.LogCaptureFixture) -> None:
    with Loop() as loop:
        calls: list[str] = []
        tasks: list[_CallLater] = []

        def cancel_all(name: str) -> None:
            calls.append(name)
            for task in tasks:
                task.cancel()

        tasks += [loop.call_later(0, cancel_all, "later"), loop.call_later(0, cancel_all, "too late")]
        loop.sched.poll()
        tasks += [loop.call_every(0, cancel_all, "every")]
        loop.sched.poll()
        loop.sched.poll()
        assert calls == ["later", "every"]
    assert not caplog.messages
