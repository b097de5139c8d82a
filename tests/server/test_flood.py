"""Cheap commands without end, from as many sessions as an address may have: others are served as if they were not.

Real clients at another address have a limit of two seconds of their own, which is what is promised; nothing is timed.
"""

import dataclasses
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from construir_ftp.ftp.turns import BURST_S
from tests.support.flood import Flood
from tests.support.ftpclient import LONG_S, PASSWORD, Control, House, serving, wait_until
from tests.support.tlsclient import tls_section

CROWD = 64
BYSTANDER = "127.0.0.2"
PROMISED_S = "2"
# curl(1): 28, the time-out was reached. It may try again: this machine can have other work, the flood goes on.
TRIES, TIMED_OUT = 3, 28
ANYONE = ("USER anonymous", "PASS x")
ALICE = ("USER alice", f"PASS {PASSWORD}")

TELNET = "\xff\xf4\xff\xf2"
BEFORE_LOGIN = {
    "cheap commands": ("FEAT\r\n", "HELP\r\n", "STAT\r\n", "XYZZY\r\n", "SYST\r\n", "OPTS UTF8 ON\r\n", "REIN\r\n"),
    "commands that are refused": ("SITE HELP\r\n", "PASV\r\n", "AUTH TLS\r\n", "PBSZ 0\r\n", "STOR x\r\n", "STOU\r\n"),
    "what is no command": (
        "\r\n",
        "NOOP\n",
        " \r\n",
        "\0\r\n",
        f"{TELNET}NOOP\r\n",
        f"{TELNET}\r\n",
        "HTTP/1.1\r\n",
    ),
    "long lines": ("x" * 2048 + "\r\n", "x" * 5000 + "\r\n", "x" * 4096, "\r", "NOOP " + "\xff" * 2000 + "\r\n"),
    "logins": ("USER anonymous\r\nPASS x\r\n", "USER x\r\n", "PASS x\r\n"),
}
AFTER_LOGIN = {
    "cheap commands": (
        "NOOP\r\n",
        "FEAT\r\n",
        "HELP\r\n",
        "STAT\r\n",
        "PWD\r\n",
        "TYPE I\r\n",
        "REST 5\r\n",
        "ABOR\r\n",
    ),
    "questions": (
        "SITE HELP\r\n",
        "SITE STATUS x\r\n",
        "SITE QUEUE\r\n",
        "SIZE /status.json\r\n",
        "MDTM /README.txt\r\n",
    ),
    "paths": ("MLST /done\r\n", "STAT /done\r\n", "CWD /done\r\n", "CWD " + "a/" * 1000 + "\r\n", "STAT /\r\n"),
    "data connections that nobody uses": ("PASV\r\n", "EPSV\r\n", "EPSV\r\nLIST\r\nABOR\r\n", "PORT 127,0,0,1,4,1\r\n"),
}


def curl(house: House, *options: str | Path) -> str:
    """The names in the server's root, within two seconds, at another address."""
    argv = ("curl", "--silent", "--show-error", "--max-time", PROMISED_S, "--interface", BYSTANDER, "--list-only")
    for _ in range(TRIES):
        done = subprocess.run([*argv, *options, house.url("/")], capture_output=True, timeout=LONG_S, check=False)
        if done.returncode != TIMED_OUT:
            break
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def expect_service(house: House) -> None:
    """A contributor and anyone log in, list, and are done in two seconds each."""
    assert "queue" in curl(house, "--user", f"alice:{PASSWORD}")
    assert "done" in curl(house)


@contextmanager
def flooded(house: House, **settings: object) -> Iterator[None]:
    """Within, the server is flooded; all sessions are still there at the end."""
    host, port = house.server.address
    flood = dataclasses.replace(Flood(host, port, sessions=CROWD), **settings)  # type: ignore[arg-type]
    with flood.going_on():
        wait_until(lambda: house.listener.turns.is_crowded, "commands wait for their turns")
        yield
        assert len(house.listener.sessions) >= flood.sessions, "nobody was cut off"


@pytest.mark.parametrize("first", [(), ANYONE, ALICE], ids=["nobody", "anyone", "alice"])
def test_login_and_listing_take_two_seconds_beside_64_sessions_of_noop(tmp_path: Path, first: tuple[str, ...]) -> None:
    with serving(tmp_path, max_sessions_per_contributor=CROWD + 1) as house, flooded(house, first=first):
        expect_service(house)


@pytest.mark.parametrize("kind", BEFORE_LOGIN)
def test_others_are_served_whatever_is_said_without_end_before_login(tmp_path: Path, kind: str) -> None:
    with serving(tmp_path) as house, flooded(house, said=BEFORE_LOGIN[kind]):
        expect_service(house)


@pytest.mark.parametrize("kind", AFTER_LOGIN)
def test_others_are_served_whatever_is_said_without_end_after_login(tmp_path: Path, kind: str) -> None:
    with serving(tmp_path) as house:
        for number in range(200):
            house.publish(f"job-{number}", {"output.log": b"x"})
        with flooded(house, said=AFTER_LOGIN[kind], first=ANYONE):
            expect_service(house)


def test_others_are_served_beside_lines_that_come_byte_by_byte(tmp_path: Path) -> None:
    with serving(tmp_path) as house, flooded(house, said=("NOOP\r\n", "x"), piece=1):
        expect_service(house)


def test_others_are_served_beside_sessions_of_noop_over_tls(
    tmp_path: Path, certificate_files: tuple[Path, Path]
) -> None:
    with (
        serving(tmp_path, tls=tls_section(certificate_files)) as house,
        flooded(house, said=("NOOP\r\n", "\r\n", "x" * 4096), certificate=str(certificate_files[0])),
    ):
        expect_service(house)


def test_others_are_served_beside_many_addresses_with_as_many_sessions_as_there_may_be(tmp_path: Path) -> None:
    sources = tuple(f"127.0.1.{number}" for number in range(1, 9))
    with serving(tmp_path) as house, flooded(house, sources=sources, sessions=8 * CROWD - 4):
        expect_service(house)


def test_others_are_served_beside_connections_made_and_closed_without_end(tmp_path: Path) -> None:
    with serving(tmp_path) as house, flooded(house), connecting(house):
        expect_service(house)


@contextmanager
def connecting(house: House) -> Iterator[None]:
    """Within, connections are made and closed without end, from an address that has all its sessions."""
    is_over = threading.Event()

    def connect() -> None:
        while not is_over.is_set():
            crowd = [socket.socket() for _ in range(50)]
            for one in crowd:
                one.setblocking(False)
                with suppress(BlockingIOError):
                    one.connect(house.server.address)
            is_over.wait(0.05)
            for one in crowd:
                one.close()

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


# -- the rate --------------------------------------------------------------------------------------------------


def test_commands_over_the_rate_of_an_address_wait_and_are_all_obeyed_in_order(tmp_path: Path) -> None:
    rate, late = 50, 60
    count = int(rate * BURST_S) + late
    with serving(tmp_path, max_command_rate=rate) as house, house.connect() as greedy:
        greedy.log_in("anonymous")
        replies = threading.Thread(target=lambda: heard.extend(greedy.reply() for _ in range(count)))
        heard = list[str]()
        replies.start()
        begun = time.monotonic()
        greedy.send(*[f"XYZ{number}" for number in range(count)])
        with house.connect(BYSTANDER) as other:
            other.log_in("anonymous")
        replies.join(LONG_S)
        # That the address rests lasts a second, which a host can sleep through; that it has rested shows for ever.
        assert time.monotonic() - begun >= late / rate - 0.1
        assert heard == [f'500 Command "XYZ{number}" not understood.' for number in range(count)]


def test_session_that_rests_ends_when_its_client_resets_it(tmp_path: Path) -> None:
    with serving(tmp_path, max_command_rate=1) as house, house.connect() as greedy:
        greedy.log_in("anonymous")
        greedy.send(*["NOOP"] * 200)
        wait_until(lambda: house.listener.turns._resting, "the address has used up what it may")
        greedy.cut()
        wait_until(lambda: not house.listener.sessions, "the session is forgotten")
        assert not house.listener.turns._resting


def test_session_that_rests_is_sent_away_by_the_login_deadline(tmp_path: Path) -> None:
    with serving(tmp_path, max_command_rate=1, login_timeout="1s") as house, house.connect() as greedy:
        greedy.send(*["NOOP"] * 200)
        said = list[str]()
        with suppress(ConnectionError):  # what it never read is answered by a reset, after what it has said
            said.extend(iter(greedy.reply, ""))
        assert 0 < sum(reply.startswith("200") for reply in said) < 200, "the address has used up what it may"
        assert said[-1].startswith("421"), said[-1]
        wait_until(lambda: not house.listener.sessions, "the session is over")


def test_client_that_waits_for_each_reply_never_makes_the_loop_stop_reading(tmp_path: Path) -> None:
    with serving(tmp_path) as house, house.connect() as polite:
        polite.log_in("anonymous")
        (session,) = house.listener.sessions
        for _ in range(200):
            assert polite.ask("NOOP").startswith("200")
            assert session._is_reading


def test_thousands_of_files_are_mirrored_within_the_burst(tmp_path: Path) -> None:
    with serving(tmp_path) as house, flooded_by_nobody(house) as rested:
        house.publish("a-job", {f"{number}.txt": b"x" for number in range(2000)})
        script = f"open {house.url('')}; mirror --parallel=8 /done/a-job {tmp_path / 'copy'}"
        subprocess.run(["lftp", "-c", script], check=True, timeout=4 * LONG_S)
        assert len(list((tmp_path / "copy").iterdir())) == 2000
    assert not rested


@contextmanager
def flooded_by_nobody(house: House) -> Iterator[list[str]]:
    """Within, it is noted whether an address has to rest."""
    rested, is_over = list[str](), threading.Event()

    def look() -> None:
        while not is_over.wait(0.005):
            rested.extend(list(house.listener.turns._resting))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield rested
    finally:
        is_over.set()
        thread.join()


# -- the order -------------------------------------------------------------------------------------------------


def test_pipelined_commands_are_answered_in_order_and_login_among_them(house: House) -> None:
    with house.connect() as control:
        lines = ["NOOP", "USER alice", f"PASS {PASSWORD}", *["PWD", "SYST", "STAT", "XYZ"] * 30, "QUIT"]
        control.send(*lines)
        codes = [control.reply()[:3] for _ in range(len(lines) + 1)]
        assert codes == ["220", "200", "331", "230", *["257", "215", "211", "500"] * 30, "221"]
        assert control.reply() == ""


def test_status_that_comes_before_any_transfer_is_not_answered_before_what_came_first(alice: Control) -> None:
    alice.send("NOOP", "NOOP", "STAT", "SYST")
    assert [alice.reply()[:3] for _ in range(4)] == ["200", "200", "211", "215"]


def test_status_before_login_is_refused_in_a_line(house: House, caplog: pytest.LogCaptureFixture) -> None:
    with house.connect() as control:
        assert control.reply().startswith("220")
        assert control.ask("STAT").startswith("530")
        assert control.ask("STAT /done").startswith("530")
        assert control.ask("NOOP").startswith("200")
    assert "Traceback" not in caplog.text
