"""Promises of limits and farewell: nobody takes every place, and whoever is turned away can read why."""

import select
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from construir_ftp.config import FtpSection
from construir_ftp.ftp import control, lingering_close, login, ports, server
from tests.support import images
from tests.support.ftpclient import LONG_S, PASSWORD, serving, wait_until

JOB = images.image("ext2", 2**20)


# -- what counts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff::", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
    ],
)
def test_one_address_of_ipv4_or_one_network_of_ipv6_counts_as_one(address: str, network: str) -> None:
    assert login.network(address) == network


def test_defaults_leave_most_of_the_server_to_others_whatever_one_address_does() -> None:
    ftp = FtpSection()
    assert ftp.max_sessions_per_address * 8 <= ftp.max_sessions
    assert ftp.max_sessions_per_contributor < ftp.max_sessions_per_address


# -- too many ---------------------------------------------------------------------------------------------------


def test_no_more_sessions_than_allowed_and_room_again_after_one_has_left(tmp_path: Path) -> None:
    with serving(tmp_path, max_sessions=3) as house:
        sessions = [house.connect().log_in() for _ in range(3)]
        with house.connect() as late:
            assert late.reply().startswith("421")
            assert late.reply() == ""
        with sessions[0].begin("/queue/x.img") as data:
            data.sendall(JOB)
        assert sessions[0].reply().startswith("226"), "a session has its data connection, whatever the number"
        sessions.pop().close()
        wait_until(lambda: len(house.listener.ip_map) == 2, "the session is forgotten")
        with house.connect() as early:
            assert early.reply().startswith("220")
        for session in sessions:
            session.close()


def test_no_address_has_more_sessions_than_allowed(tmp_path: Path) -> None:
    with serving(tmp_path, max_sessions_per_address=2) as house, house.connect() as first, house.connect() as second:
        assert first.reply().startswith("220")
        assert second.reply().startswith("220")
        with house.connect() as third:
            assert third.reply().startswith("421")
        with house.connect("127.0.0.2") as other:
            assert other.reply().startswith("220")


def test_no_contributor_has_more_sessions_than_allowed(tmp_path: Path) -> None:
    with serving(tmp_path, max_sessions_per_contributor=1) as house, house.connect() as first:
        first.log_in()
        with house.connect("127.0.0.2") as second:
            second.reply()
            assert second.ask("USER alice").startswith("331")
            assert second.ask(f"PASS {PASSWORD}").startswith("421 You have 1 sessions, the most allowed")
            assert second.reply() == ""
        with house.connect() as bob, house.connect() as anyone:
            bob.log_in("bob")
            anyone.log_in("anonymous")
        assert first.ask("QUIT").startswith("221")
        assert first.reply() == ""
        with house.connect() as again:
            again.log_in()


def test_whoever_is_turned_away_can_read_why_although_they_spoke_first(tmp_path: Path) -> None:
    with serving(tmp_path, max_sessions=1) as house, house.connect() as first:
        assert first.reply().startswith("220")
        for _ in range(20):
            with house.connect("127.0.0.2") as late:
                late.send("USER alice", f"PASS {PASSWORD}", "NOOP " + "x" * 3000)
                # All of that has arrived, and been answered, before a byte of the answer is read.
                assert select.select([late.socket], [], [], LONG_S)[0]
                assert late.reply() == "421 All 1 sessions of this server are taken; try again later."
                assert late.reply() == "", "closed, not reset"


def test_nobody_waits_for_one_who_was_turned_away_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering_close, "_PATIENCE_S", 0.3)
    with serving(tmp_path, max_sessions=1) as house, house.connect() as first, house.connect() as late:
        assert first.reply().startswith("220")
        assert late.reply().startswith("421")
        wait_until(lambda: len(house.listener.ioloop.socket_map) == 3, "it is closed from our side")


def test_crowds_that_are_turned_away_do_not_use_up_descriptors(tmp_path: Path) -> None:
    with serving(tmp_path, max_sessions=1) as house, house.connect() as first:
        assert first.reply().startswith("220")
        late = [house.connect() for _ in range(server._MOST_FAREWELLS + 20)]
        for one in late:
            assert one.reply().startswith("421")
        assert len(house.listener.ioloop.socket_map) <= server._MOST_FAREWELLS + 3
        for one in late:
            one.close()


def test_what_the_kernel_keeps_of_a_session_that_is_not_read_is_little(tmp_path: Path) -> None:
    with serving(tmp_path) as house, house.connect() as one:
        assert one.reply().startswith("220")
        (session,) = house.listener.sessions
        # The kernel doubles what it is asked for: socket(7), SO_RCVBUF.
        assert session.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 2 * ports.CONTROL_BUFFER_BYTES


def test_directories_that_a_session_makes_are_bounded(tmp_path: Path) -> None:
    with serving(tmp_path) as house, house.connect() as alice:
        alice.log_in()
        made = [alice.ask(f"MKD /queue/d{number}")[:3] for number in range(110)]
        assert (made.count("257"), made[-1]) == (100, "550")


# -- too late ----------------------------------------------------------------------------------------------------


@pytest.mark.steady(0.2)
def test_connection_that_nobody_logs_in_on_is_closed(tmp_path: Path) -> None:
    with serving(tmp_path, login_timeout="400ms") as house, house.connect() as idle, house.connect() as anyone:
        anyone.log_in("anonymous")
        assert idle.reply().startswith("220")
        assert idle.reply() == "421 Nobody has logged in for 0.4 s."
        assert idle.reply() == ""
        assert anyone.ask("NOOP").startswith("200"), "who has logged in may stay"


def test_activity_other_than_logging_in_gives_no_more_time(tmp_path: Path) -> None:
    with serving(tmp_path, login_timeout="500ms") as house, house.connect() as busy:
        replies = [busy.reply()]
        with suppress(ConnectionError):
            while replies[-1][:3] in ("220", "200"):
                replies.append(busy.ask("NOOP"))
                threading.Event().wait(0.01)
        # A command that crosses the end is answered by a reset; what was said before that can still be read.
        with suppress(ConnectionError):
            while reply := busy.reply():
                replies.append(reply)
        assert replies[-1].startswith("421"), replies


@pytest.mark.steady(0.2)
def test_who_logs_out_has_the_same_time_to_log_in_again(tmp_path: Path) -> None:
    with serving(tmp_path, login_timeout="500ms") as house, house.connect() as control:
        control.log_in("anonymous")
        threading.Event().wait(0.7)
        assert control.ask("REIN").startswith("230")
        assert control.reply().startswith("421")
        assert control.reply() == ""


@pytest.mark.steady(1.5)
def test_nobody_waits_for_a_client_that_does_not_read_its_last_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_UNREAD_S", 0.3)
    with serving(tmp_path, login_timeout="3s") as house, house.connect() as deaf:
        assert deaf.reply().startswith("220")
        (session,) = house.listener.sessions
        # Its replies fill every buffer on the way, since none of them is read: small ones, so that it takes no seconds.
        deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        deaf.send(*["HELP"] * 1000)
        wait_until(session.is_unread, "its replies are unread")
        assert len(session.producer_fifo) < 100
        wait_until(lambda: not house.listener.sessions, "the session is closed")
