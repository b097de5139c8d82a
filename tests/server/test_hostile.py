"""A crowd of hostile sockets before one server, with the limits it has by default: others are served as if it were not.

Real clients have a limit of two seconds of their own, which is what is promised; nothing is timed here.
"""

import functools
import itertools
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support import images
from tests.support.belongings import POOLS, descriptors, nothing_since
from tests.support.ftpclient import LONG_S, PASSWORD, Control, House, reset, serving, settled, wait_until
from tests.support.tlsclient import tls_section

CROWD = 300
# From each of their addresses: fewer than the limit of 64, so that it is not what keeps them out.
PER_ADDRESS = 60
PROMISED_S = "2"
# curl(1): 28, the time-out was reached.
TRIES, TIMED_OUT = 3, 28
UPLOADERS = 30
FILE = "/done/a-job/large.img"


@functools.cache
def client_hello() -> bytes:
    """What a TLS client says first."""
    said = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), said, server_hostname="localhost").do_handshake()
    return said.read()


class Nuisance:
    """One of the crowd: the sockets it holds, and what it sends over the last of them, byte by byte."""

    def __init__(self, house: House, number: int) -> None:
        self.source = f"127.0.0.{2 + number // PER_ADDRESS}"
        self.number, self.drip = number, b""
        self.control = Control(house.server.address, self.source)
        self.sockets = [self.control.socket]

    def idle(self) -> None:
        """Says nothing."""
        self.greet()

    def greet(self) -> None:
        """Read the greeting."""
        assert self.control.reply().startswith("220")

    def slow_command(self) -> None:
        """Has begun to say who it is."""
        self.greet()
        self.drip = b"USER anonymous"

    def half_tls(self) -> None:
        """Has begun a handshake."""
        self.greet()
        assert self.control.ask("AUTH TLS").startswith("234")
        self.drip = client_hello()

    def half_passive(self) -> None:
        """Waits for itself to open a data connection."""
        self.control.log_in("anonymous")
        assert self.control.ask("PASV").startswith("227")
        self.control.send(f"RETR {FILE}")

    def unused_data(self) -> None:
        """Has opened a data connection, and uses it for nothing."""
        self.control.log_in("anonymous")
        self.open()

    def open(self) -> None:
        """Open a data connection."""
        port = int(self.control.ask("EPSV").split("|")[3])
        self.sockets.append(socket.create_connection(("127.0.0.1", port), LONG_S, source_address=(self.source, 0)))

    def unread_download(self) -> None:
        """Fetches a file, and reads none of it."""
        self.unused_data()
        self.control.send(f"RETR {FILE}")

    def slow_upload(self) -> None:
        """Sends a job, a byte at a time."""
        self.control.log_in(("alice", "bob")[self.number % 2])
        self.open()
        assert self.control.ask(f"STOR /queue/{self.number}.img").startswith(("125", "150"))
        self.drip = images.image("ext2", 2**20)

    def send_a_byte(self) -> None:
        """The next one."""
        sent, self.drip = self.drip[:1], self.drip[1:]
        with suppress(OSError):
            self.sockets[-1].sendall(sent)

    def leave(self) -> None:
        """Close everything; every other one by RST."""
        for sock in reversed(self.sockets):
            if self.number % 2:
                reset(sock)
        self.control.close()
        for sock in self.sockets:
            sock.close()


KINDS = (
    *(Nuisance.idle, Nuisance.slow_command, Nuisance.half_tls, Nuisance.half_tls),
    *(Nuisance.half_passive, Nuisance.half_passive, Nuisance.unused_data, Nuisance.unread_download),
)


@contextmanager
def crowd(house: House, uploaders: int = UPLOADERS) -> Iterator[list[Nuisance]]:
    """Some of every kind, all of them there at once; on leaving, they leave."""
    house.publish("a-job", {"large.img": bytes(8 * images.MIB)})
    members = [Nuisance(house, number) for number in range(CROWD)]
    try:
        kinds = itertools.cycle(KINDS)
        for member in members:
            (Nuisance.slow_upload if member.number < uploaders else next(kinds))(member)
        wait_until(lambda: len(house.listener.sessions) == CROWD, "all of them have a session")
        yield members
    finally:
        for member in members:
            member.leave()


def curl(house: House, path: str, *options: str | Path) -> str:
    """What curl fetches within two seconds. It may try again: this machine can have other work, the crowd goes on."""
    argv = ("curl", "--silent", "--show-error", "--max-time", PROMISED_S, *options, house.url(path))
    for _ in range(TRIES):
        done = subprocess.run(argv, capture_output=True, timeout=LONG_S, check=False)
        if done.returncode != TIMED_OUT:
            break
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def expect_service(house: House, certificate: Path) -> None:
    """A contributor and anyone, in clear and over TLS, log in, list and are done in two seconds each."""
    login = ("--user", f"alice:{PASSWORD}")
    assert "queue" in curl(house, "/", *login)
    assert "queue" in curl(
        house, "/", *login, "--ssl-reqd", "--cacert", certificate, "--resolve", "localhost:0:127.0.0.1"
    )
    assert "done" in curl(house, "/")


def test_real_logins_are_answered_in_two_seconds_before_a_crowd_of_300_and_nothing_is_left_of_it(
    tmp_path: Path, certificate_files: tuple[Path, Path]
) -> None:
    with serving(tmp_path, tls=tls_section(certificate_files)) as house:
        before = settled(house)
        with crowd(house) as members:
            for _ in range(3):
                for member in members:
                    member.send_a_byte()
                expect_service(house, certificate_files[0])
            assert len(house.listener.sessions) >= CROWD, "they are all still there"
        wait_until(house.is_quiet, "the crowd has gone")
        nothing_since(before, "of a crowd", POOLS)
        assert house.kept() == {f"{number}.img": 2 for number in range(UPLOADERS)}, "all but the last byte: see partial"
        assert len(house.names("incoming")) == UPLOADERS
        assert house.names("queue") == house.names("running") == house.names("trash") == []
        expect_service(house, certificate_files[0])


@pytest.mark.steady(1)
def test_crowd_that_stays_is_sent_away_by_the_deadlines_alone(
    tmp_path: Path, certificate_files: tuple[Path, Path]
) -> None:
    deadlines: dict[str, Any] = {"login_timeout": "8s", "idle_timeout": "6s", "upload_rate_window": "6s"}
    with serving(tmp_path, tls=tls_section(certificate_files), **deadlines) as house:
        before = settled(house)
        with crowd(house, uploaders=4):
            ours = descriptors().total()
            wait_until(house.is_quiet, "everyone was sent away")
            assert descriptors().total() < ours
        nothing_since(before, "of a crowd", POOLS)
        expect_service(house, certificate_files[0])


@pytest.mark.steady(1)
def test_handshakes_that_are_never_done_end_with_the_login_deadline_however_many_there_are(
    tmp_path: Path, certificate_files: tuple[Path, Path]
) -> None:
    with serving(tmp_path, tls=tls_section(certificate_files), login_timeout="5s") as house:
        before = settled(house)
        addresses = [f"127.0.0.{2 + number // PER_ADDRESS}" for number in range(CROWD)]
        doors = itertools.cycle((house.server.address, (house.server.address[0], house.server.implicit_port)))
        halves = [socket.create_connection(next(doors), LONG_S, source_address=(own, 0)) for own in addresses]
        for half in halves[::2]:
            half.sendall(b"AUTH TLS\r\n")
        for number, half in enumerate(halves):
            half.sendall(client_hello()[: number % 100])
        wait_until(lambda: len(house.listener.sessions) == CROWD, "all of them have a session")
        expect_service(house, certificate_files[0])
        wait_until(house.is_quiet, "all of them were closed from our side")
        for half in halves:
            read_to_end(half)
            half.close()
        nothing_since(before, "of a crowd", POOLS)


def read_to_end(sock: socket.socket) -> None:
    """Until the other end has closed the connection."""
    with suppress(ConnectionError):
        while sock.recv(1000):
            pass


def test_crowd_from_one_address_keeps_nobody_else_out(tmp_path: Path, certificate_files: tuple[Path, Path]) -> None:
    with serving(tmp_path, tls=tls_section(certificate_files)) as house:
        ones = [house.connect("127.0.0.2") for _ in range(CROWD)]
        greetings = [one.reply()[:3] for one in ones]
        most = house.listener.ftp.max_sessions_per_address
        assert greetings.count("220") == most
        assert greetings.count("421") == CROWD - most
        expect_service(house, certificate_files[0])
        for one in ones:
            one.close()
