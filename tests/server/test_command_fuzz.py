"""The command channel against hostile clients by the hundred: one proper reply to each command, and nothing else, ever.

Every visit is made from its number, so that one which fails can be made again; several go on at once. A few thousand
commands in each run, 100,000 with --all.
"""

import io
import json
import os
import random
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.support import images
from tests.support.belongings import POOLS, nothing_since
from tests.support.ftpclient import LONG_S, PASSWORD, House, reset, serving, settled, wait_until
from tests.support.ftpgrammar import CRLF, RESULT, burst, first_reply, may_end_session
from tests.support.places import PROJECT
from tests.support.tlsclient import strict_context, tls_section
from tests.support.watchedlog import watched_log

QUICK, ALL = 6_000, 100_000
PER_VISIT, AT_ONCE = 100, 8
JOB = images.pack("zstd", images.image("ext2", 256 * images.KIB))
CONTENTS = (b"", b"x", JOB, JOB, JOB[: len(JOB) // 2], images.noise(200 * images.KIB), bytes(300 * images.KIB))
MOMENT_S = 0.02


class EndedError(Exception):
    """The connection is over."""


class Visitor:
    """One session of a hostile client. Whatever it does, it counts the replies."""

    def __init__(self, house: House, chance: random.Random, context: ssl.SSLContext) -> None:
        self.chance, self.context = chance, context
        self.sent = 0
        self.replies: list[str] = []
        self._unread, self._data = b"", list[socket.socket]()
        # An address of its own: what others do at theirs is not held against it.
        self.host = "127." + ".".join(str(chance.randrange(1, 255)) for _ in range(3))
        self._listener = socket.create_server((self.host, 0))
        self._listener.setblocking(False)
        self._control = socket.create_connection(house.server.address, LONG_S, source_address=(self.host, 0))
        self._is_protected = False

    def close(self) -> None:
        """Leave: politely, or not."""
        with suppress(OSError):
            if self.chance.random() < 0.3:
                self._control.sendall(
                    self.chance.choice((b"STOR x", b"QUIT\r\n", b"\r", b"LIST\r\nSTOR x.img\r\n" * 9))
                )
        for sock in (*self._data, self._listener, self._control):
            self._let_go(sock)

    def _let_go(self, sock: socket.socket) -> None:
        if self.chance.random() < 0.3 and sock.fileno() >= 0:
            reset(sock)
        else:
            sock.close()

    def visit(self, most: int) -> None:
        """Send so many commands, or fewer if the session ends before."""
        try:
            assert self._take(1, LONG_S).startswith("220")
            if self.chance.random() < 0.2:
                self._begin_tls()
            self._log_in()
            while self.sent < most:
                host, port = self._listener.getsockname()
                lines = burst(self.chance, host, port)
                if any(line[:4].upper() == b"AUTH" for line in lines) and self.chance.random() < 0.5:
                    self._begin_tls()
                else:
                    self._ask(*lines)
                if not self.is_logged_in and self.chance.random() < 0.5:
                    self._log_in()
        except EndedError:
            pass

    def _log_in(self) -> None:
        name, before = self.chance.choice(("alice", "alice", "bob", "anonymous")), len(self.replies)
        self._ask(f"USER {name}".encode(), f"PASS {PASSWORD}".encode(), b"TYPE I", b"CWD /queue")
        # Where the server is slow to answer, there are many replies to ABOR (see _help_on).
        said = self.replies[before:]
        assert any(reply.startswith("230 ") for reply in said), said

    def _begin_tls(self) -> None:
        """AUTH alone, since what comes in its packet is thrown away; then a handshake, or something else."""
        self._control.sendall(b"AUTH TLS\r\n")
        self.sent += 1
        if not self._take(1, LONG_S).startswith("234"):
            return
        if self.chance.random() < 0.2:
            self._control.sendall(
                self.chance.choice((b"NOOP\r\n" * 50, b"\x16\x03\x01\x02\x00\x01", b"\x80", b"\0" * 99))
            )
            raise EndedError
        self._control.settimeout(LONG_S)
        self._control = self.context.wrap_socket(self._control, server_hostname="localhost")
        if self.chance.random() < 0.7:
            self._ask(b"PBSZ 0", b"PROT P")
            self._is_protected = True

    @property
    def is_logged_in(self) -> bool:
        """Whether it seems to be."""
        codes = [reply[:3] for reply in self.replies if reply[:3] in ("230", "331", "530", "234")]
        return codes[-1:] == ["230"] and "Ready for new user" not in self.replies[-1]

    # -- commands and replies ------------------------------------------------------------------------------------

    def _ask(self, *lines: bytes) -> None:
        """Send commands, in one piece or several; there must be one reply to each, and to none of them two."""
        mark = f"MARK{self.chance.getrandbits(64):x}".upper()
        asked = CRLF.join((*lines, mark.encode(), b""))
        cut = self.chance.randrange(len(asked)) if self.chance.random() < 0.2 else 0
        self.sent += len(lines)
        before = len(self.replies)
        try:
            self._control.settimeout(LONG_S)
            self._control.sendall(asked[:cut])
            self._control.sendall(asked[cut:])
            self._take(len(lines) + 1)
        except AssertionError as error:
            said = [reply[:200] for reply in self.replies[before:]]
            error.add_note(f"{[line[:200] for line in lines]} was answered with {said}")
            raise
        except (EndedError, OSError) as error:
            said = self.replies[before:]
            assert any(map(may_end_session, lines)), f"{error!r} after {lines} and {said}"
            assert not said or said[-1][:3] in ("221", "234", "421", "530"), f"{error!r} after {lines} and {said}"
            raise EndedError from None
        said = self.replies[before:]
        assert any(mark in reply for reply in said), f"{lines}: replies are not in step: {said}"

    def _take(self, expected: int, pause_s: float = MOMENT_S) -> str:
        """So many replies, preliminary ones not counted; the last of them. A command that waits for us is helped on."""
        deadline = time.monotonic() + LONG_S
        while expected:
            self._control.settimeout(pause_s)
            try:
                received = self._control.recv(65536)
            except TimeoutError:
                is_idle = len(self.replies) > 9 and all("No transfer" in reply for reply in self.replies[-9:])
                assert time.monotonic() < deadline and not is_idle, "there is no reply to come"
                expected += self._help_on()
                pause_s = min(1.0, pause_s * 2)
                continue
            if not received:
                raise EndedError
            self._unread += received
            while expected and (found := first_reply(self._unread)) is not None:
                self.replies.append(found[0])
                self._unread = found[1]
                expected -= found[0][0] != "1"
                self._play(found[0])
        assert not self._unread, f"more than was asked for: {self._unread!r}"
        return self.replies[-1]

    def _help_on(self) -> int:
        """Close the data connections, and abort what waits for one; how many more replies there will be."""
        while self._data:
            self._data.pop().close()
        # After a QUIT that is answered, but was not read yet, the connection may be reset.
        with suppress(OSError):
            self._control.sendall(b"ABOR\r\n")
        return 1

    # -- data connections ----------------------------------------------------------------------------------------

    def _play(self, reply: str) -> None:
        """Do something with a data connection, since there may be one by now."""
        with suppress(OSError):
            if reply[:3] in ("227", "229") and self.chance.random() < 0.8:
                self._connect(reply)
            if reply[:3] in ("125", "150", "200", "425"):
                self._accept()
        if self._data and reply[:3] in ("125", "150", "229"):
            self._use(self._data[-1])

    def _connect(self, reply: str) -> None:
        numbers = "".join(sign if sign.isdigit() else " " for sign in reply[3:]).split()
        port = int(numbers[-1]) if reply.startswith("229") else int(numbers[-2]) * 256 + int(numbers[-1])
        self._keep(socket.create_connection(("127.0.0.1", port), 1, source_address=(self.host, 0)))

    def _accept(self) -> None:
        self._keep(self._listener.accept()[0])

    def _keep(self, sock: socket.socket) -> None:
        self._data.append(sock)
        sock.settimeout(1)
        if self._is_protected and self.chance.random() < 0.7:
            self._data[-1] = self.context.wrap_socket(sock, server_hostname="localhost")
        while len(self._data) > 3:
            self._data.pop(0).close()

    def _use(self, sock: socket.socket) -> None:
        # ValueError: what ssl says once the handshake has failed.
        with suppress(OSError, ValueError):
            sock.settimeout(MOMENT_S)
            if self.chance.random() < 0.5:
                sock.sendall(self.chance.choice(CONTENTS))
            if self.chance.random() < 0.4:
                sock.recv(self.chance.choice((1, 1000, 1 << 20)))
            if isinstance(sock, ssl.SSLSocket) and self.chance.random() < 0.6:
                sock.unwrap()
        if self.chance.random() < 0.7:
            self._let_go(self._data.pop())


def visit(house: House, number: int, context: ssl.SSLContext) -> tuple[int, list[str]]:
    """One after the other, sessions that send PER_VISIT commands in all; how many, and the replies."""
    chance = random.Random(number)
    sent, replies = 0, list[str]()
    while sent < PER_VISIT:
        visitor = Visitor(house, chance, context)
        try:
            visitor.visit(PER_VISIT - sent)
        except BaseException as error:
            error.add_note(f"visit {number}, from {visitor.host}, after {sent + visitor.sent} commands")
            raise
        finally:
            visitor.close()
        sent, replies = sent + visitor.sent, replies + visitor.replies
    return sent, replies


def delete_what_is_kept(house: House) -> None:
    """Delete, as its contributors, all that is in incoming/; whatever is there has to be somebody's."""
    notes = [json.loads((place / "partial.json").read_bytes()) for place in house.spool.state("incoming").iterdir()]
    for name in ("alice", "bob"):
        own = [note["name"] for note in notes if note["contributor"] == name]
        assert len(own) == len(set(own)) <= house.listener.ftp.max_partial_files
        with house.client(name) as client:
            for kept in own:
                client.delete(f"/queue/{kept}")
    assert house.names("incoming") == []
    assert house.names("running") == house.names("trash") == []


@pytest.fixture
def most(request: pytest.FixtureRequest) -> int:
    """How many commands."""
    return ALL if request.config.getoption("--all") else QUICK


# ssl leaves a connection that is reset before its handshake to the garbage collector; descriptors are counted anyway.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_every_command_has_one_reply_and_nothing_is_left_of_hostile_clients(
    tmp_path: Path, certificate_files: tuple[Path, Path], most: int, capsys: pytest.CaptureFixture[str]
) -> None:
    context = strict_context(certificate_files[0])
    with watched_log() as faults, ExitStack() as stack:
        house = stack.enter_context(serving(tmp_path, tls=tls_section(certificate_files)))
        before = settled(house)
        house.publish(RESULT, {"output.log": b"hello\n" * 1000, "large.img": images.noise(3 * images.MIB)})
        with ThreadPoolExecutor(AT_ONCE) as pool:
            visits = list(pool.map(lambda number: visit(house, number, context), range(most // PER_VISIT)))
        wait_until(house.is_quiet, "every session has ended")
        nothing_since(before, "by hostile clients", POOLS)
        with house.client() as client:
            assert client.storbinary("STOR /queue/fresh.img", io.BytesIO(JOB)).startswith("226")
        delete_what_is_kept(house)
    assert not faults, faults[0]
    said = [reply for _, replies in visits for reply in replies]
    assert not [reply for reply in said if str(tmp_path) in reply or str(PROJECT) in reply]
    counts = {code: sum(reply[:3] == code for reply in said) for code in ("226", "230", "426", "500", "501", "550")}
    assert all(count > most // 1000 for count in counts.values()), "every kind of end is tried"
    with capsys.disabled():
        print(f"\n{sum(sent for sent, _ in visits)} commands, {len(said)} replies, of them {counts}; pid {os.getpid()}")
