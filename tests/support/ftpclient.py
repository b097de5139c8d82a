"""A real FTP server in a thread, and a client that speaks to it line by line, for all tests."""

import contextlib
import ftplib
import functools
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import argon2

from construir_ftp import schema
from construir_ftp.config import Config, FtpSection, GateSection, TlsSection
from construir_ftp.ftp.server import Server, open_server
from construir_ftp.ftp.users import Users
from construir_ftp.ftp.vfs import readme
from construir_ftp.intake.check_threads import CheckThreads
from construir_ftp.jail import jail
from construir_ftp.jobs.spool import STATES, Spool
from construir_ftp.layers.resolver import Offer
from tests.support.belongings import Belongings, nothing_since
from tests.support.prison import judge_server_pids

PASSWORD = "correct horse"
LONG_S = 60.0


@functools.cache
def users_text(*names: str, password: str = PASSWORD) -> str:
    """A users file whose hashes, which say so themselves, cost nothing to check: hundreds of tests log in."""
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    return "".join(f'[contributors.{name}]\npassword = "{hasher.hash(password)}"\n' for name in names)


def wait_until(done: Callable[[], object], what: str) -> None:
    """Wait for something that another thread or process does; fail after LONG_S."""
    deadline = time.monotonic() + LONG_S
    while not done():
        assert time.monotonic() < deadline, f"not in {LONG_S:g} s: {what}"
        time.sleep(0.005)


@contextlib.contextmanager
def held_check() -> Iterator[int]:
    """Within, no upload comes before a judge: their server, by pid, stands still. Large uploads stall.

    One that has its judge by then keeps it: enter this before anything is sent.
    """
    wait_until(judge_server_pids, "the judge server is there")
    (judge_server,) = judge_server_pids()
    os.kill(judge_server, signal.SIGSTOP)
    try:
        yield judge_server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(judge_server, signal.SIGCONT)


def reset(data: socket.socket) -> None:
    """Close a connection by RST: SO_LINGER with a time of zero, socket(7)."""
    data.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    data.close()


class Control:
    """A control connection; nothing is sent or read but what is asked for."""

    def __init__(self, address: tuple[str, int], source: str = "") -> None:
        self.socket = socket.create_connection(address, LONG_S, source_address=(source, 0) if source else None)
        self._lines = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._lines.close()
        self.socket.close()

    def cut(self) -> None:
        """Close the connection by RST."""
        self._lines.close()
        reset(self.socket)

    def send(self, *lines: str | bytes) -> None:
        """Send lines, in one piece."""
        self.socket.sendall(b"".join((line.encode() if isinstance(line, str) else line) + b"\r\n" for line in lines))

    def reply(self) -> str:
        """The next reply, whole; "" at the end of the connection."""
        first = line = self._lines.readline().decode()
        while line and not (line[:3] == first[:3] and line[3:4] == " "):
            line = self._lines.readline().decode()
            first += line
        return first.rstrip("\r\n")

    def ask(self, line: str | bytes) -> str:
        """Send a line, return its reply."""
        self.send(line)
        return self.reply()

    def log_in(self, name: str = "alice", password: str = PASSWORD) -> Self:
        """Read the greeting, log in, binary."""
        assert self.reply().startswith("220")
        return self.identify(name, password)

    def identify(self, name: str = "alice", password: str = PASSWORD) -> Self:
        """Log in, binary."""
        assert self.ask(f"USER {name}").startswith("331")
        assert self.ask(f"PASS {password}").startswith("230")
        assert self.ask("TYPE I").startswith("200")
        return self

    def passive(self) -> socket.socket:
        """Open a data connection, by EPSV."""
        reply = self.ask("EPSV")
        assert reply.startswith("229"), reply
        return socket.create_connection((self.socket.getpeername()[0], int(reply.split("|")[3])), LONG_S)

    def begin(self, name: str, command: str = "STOR") -> socket.socket:
        """STOR or APPE; the data connection that the server now reads from."""
        data = self.passive()
        reply = self.ask(f"{command} {name}")
        assert reply.startswith(("125", "150")), reply
        return data

    def store(self, name: str, content: bytes, command: str = "STOR") -> str:
        """A whole upload; the reply to it."""
        with self.begin(name, command) as data, contextlib.suppress(ConnectionError):
            data.sendall(content)
        return self.reply()

    def fetch(self, command: str) -> bytes:
        """What a RETR, LIST, NLST or MLSD sends; it must succeed."""
        with self.passive() as data:
            reply = self.ask(command)
            assert reply.startswith(("125", "150")), reply
            with data.makefile("rb") as file:
                content = file.read()
        assert self.reply().startswith("226")
        return content


class House:
    """A running server, its spool and its users."""

    def __init__(
        self,
        path: Path,
        gate: GateSection,
        min_free: int,
        tls: TlsSection,
        settings: dict[str, object],
        config: Config | None = None,
    ) -> None:
        self.spool = Spool.prepare(path / "spool")
        self.users = Users(self.spool.path / "users.toml")
        self.users.path.write_text(users_text("alice", "bob"))
        ftp = schema.convert({"port": 0, "wrong_password_pause": "10ms", **settings}, FtpSection)
        offer = Offer.of(self.spool, config or Config())
        guide = functools.partial(readme.text, Config(ftp=ftp, tls=tls, gate=gate))
        self.server: Server = open_server(self.spool, self.users, ftp, tls, gate, offer, min_free, guide)
        self.thread = threading.Thread(target=self.server.run)
        self.listener = self.server._listener

    def connect(self, source: str = "") -> Control:
        """A control connection, nobody logged in."""
        return Control(self.server.address, source)

    def client(self, name: str = "alice", password: str = PASSWORD) -> ftplib.FTP:
        """A client of the standard library, logged in."""
        client = ftplib.FTP(timeout=LONG_S)
        client.connect(*self.server.address)
        client.login(name, password)
        return client

    def url(self, path: str) -> str:
        """The address of a path on this server."""
        host, port = self.server.address
        return f"ftp://{host}:{port}{path}"

    def names(self, state: str) -> list[str]:
        """The names in one of the spool's directories."""
        return sorted(entry.name for entry in self.spool.state(state).iterdir())

    def is_untouched(self) -> bool:
        """Whether nothing of any upload is in the spool."""
        return not any(self.names(state) for state in STATES)

    def kept(self) -> dict[str, int]:
        """Name and size of each upload that is kept to be continued or renamed, and that nobody has in hand."""
        partials = self.listener.intake.partials
        in_hand = {partial.job.path for name in ("alice", "bob") for partial in partials.of(name) if partial.is_busy}
        found = {}
        with contextlib.suppress(FileNotFoundError):
            for place in self.spool.state("incoming").iterdir():
                note = json.loads((place / "partial.json").read_bytes())
                if not note["boot"] and place not in in_hand:
                    found[note["name"]] = (place / "upload").stat().st_size
        return found

    def keeps(self, sizes: dict[str, int]) -> bool:
        """Whether exactly these uploads are kept, and nothing else is in the spool."""
        others = [name for state in STATES if state != "incoming" for name in self.names(state)]
        return self.kept() == sizes and len(self.names("incoming")) == len(sizes) and not others

    def publish(self, name: str, files: dict[str, bytes]) -> Path:
        """A finished job in done/."""
        directory = self.spool.state("done") / name
        directory.mkdir()
        for file, content in files.items():
            (directory / file).write_bytes(content)
        return directory

    def is_quiet(self) -> bool:
        """Whether the loop has forgotten all of its sessions: the bell and one or two doors are what is left.

        And what the last of them have left to the background, such as an upload to be kept or deleted, is done.
        """
        left = 2 if self.server.implicit_port is None else 3
        loop = self.listener.ioloop
        # What was counted for the log is told later, whoever is there.
        counted = self.listener.quiet_log.timer
        tasks = [task for task in loop.sched._tasks if not task.cancelled and task is not counted]
        is_forgotten = not (self.listener.sessions or self.listener.ip_map or tasks) and len(loop.socket_map) <= left
        return is_forgotten and not any(map(_is_at_work, vars(self.listener.background).values()))


def _is_at_work(pool: object) -> bool:
    """Whether a pool of threads has something left to do; the standard library has no word for that."""
    if isinstance(pool, CheckThreads):
        return bool(pool._busy or pool._waiting or pool._aside)
    if not isinstance(pool, ThreadPoolExecutor) or pool._shutdown:
        return False
    return not pool._work_queue.empty() or pool._idle_semaphore._value < len(pool._threads)


def settled(house: House) -> Belongings:
    """What there is once an upload was judged, and nobody is there; what starts late has by then."""
    with house.connect() as control:
        assert control.log_in().store("/queue/x.img", b"x").startswith("550")
    wait_until(house.is_quiet, "the session is forgotten")
    return Belongings.now()


@contextlib.contextmanager
def serving(
    path: Path,
    gate: GateSection | None = None,
    min_free: int = 0,
    tls: TlsSection | None = None,
    config: Config | None = None,
    **settings: object,
) -> Iterator[House]:
    """Serve what `config` offers, and count afterwards what was left: descriptors, threads, children, the
    loop's entries.
    """
    jail.host()  # found at its first use, and kept
    before = Belongings.now()
    house = House(path, gate or GateSection(), min_free, tls or TlsSection(), settings, config)
    house.thread.start()
    try:
        yield house
        # A listing is kept on purpose when all sessions have gone; while one is being sent it can't be closed.
        wait_until(lambda: not house.listener.sessions, "every session has ended")
        for keeper in (house.listener.read_ahead, house.listener.listings):
            house.listener.bell.call(keeper.close)
        wait_until(house.is_quiet, "the loop forgets every session")
    finally:
        house.server.stop()
        house.thread.join(LONG_S)
        house.server.close()
    assert not house.thread.is_alive()
    nothing_since(before, "of a server that was closed")
