"""The FTP server: contributors put jobs into /queue, anyone fetches results from /done.

One event loop, pyftpdlib's, in the thread that calls `run`; what takes longer than a few milliseconds is done in
the background. Never looks into what it receives: that is for gate. Meets the runner in the spool only.
"""

import logging
import math
import resource
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from pyftpdlib.ioloop import Acceptor
from pyftpdlib.servers import FTPServer

from construir_ftp.config import FtpSection, GateSection, TlsSection
from construir_ftp.ftp import login
from construir_ftp.ftp.certificate import Certificate
from construir_ftp.ftp.commands.table import Table
from construir_ftp.ftp.ioloop import Background, Bell, Loop
from construir_ftp.ftp.lingering_close import Farewell
from construir_ftp.ftp.passwords import Passwords
from construir_ftp.ftp.ports import BACKLOG, PORT, bind, check_masquerade_address, passive_ports
from construir_ftp.ftp.quiet_log import QuietLog
from construir_ftp.ftp.session import FACTS, Session
from construir_ftp.ftp.turns import Turns
from construir_ftp.ftp.users import Users
from construir_ftp.ftp.vfs.listing import Listings
from construir_ftp.ftp.vfs.readahead import ReadAhead
from construir_ftp.ftp.vfs.view import View
from construir_ftp.ftp.vfs.virtual_files import Notices
from construir_ftp.intake.file_writer import Flusher
from construir_ftp.intake.incoming import Partials
from construir_ftp.intake.judge_pool import NOBODY, JudgePool
from construir_ftp.intake.quota import Quotas
from construir_ftp.intake.upload import Intake
from construir_ftp.jobs import judging
from construir_ftp.jobs.disk_space import Room
from construir_ftp.jobs.reply import Reply
from construir_ftp.jobs.spool import Spool
from construir_ftp.layers.resolver import Offer

log = logging.getLogger("construir.ftp")

# A session has at most: control connection, one waiting for or being the data connection, a file, a pipe to a child.
_DESCRIPTORS_PER_SESSION = 4
_MOST_FAREWELLS = 64
_OTHER_DESCRIPTORS = 128 + _MOST_FAREWELLS
_PAUSE_S = 1
# Connections are accepted for so long, and then others have their turn. Were it one at a time, a crowd that connects
# without end would keep a newcomer waiting behind all of it.
_ACCEPTING_S = 0.005


class _Door(Acceptor):  # type: ignore[misc] # pyftpdlib is untyped
    """A port that is listened on."""

    def handle_accept(self) -> None:
        """Called when connections wait to be accepted."""
        until = time.monotonic() + _ACCEPTING_S
        while (accepted := self.accept()) is not None:
            self.handle_accepted(*accepted)
            if time.monotonic() > until:
                break

    def handle_error(self) -> None:
        """Called when accept(2) failed, for want of descriptors: pyftpdlib would stop listening for good."""
        log.exception("no new sessions for %d s", _PAUSE_S)
        self.del_channel()
        self.ioloop.call_later(_PAUSE_S, self.add_channel)


class Listener(_Door, FTPServer):  # type: ignore[misc] # pyftpdlib is untyped
    """Accepts sessions, and holds what they have in common."""

    def __init__(
        self,
        sock: socket.socket,
        ioloop: Any,
        intake: Intake,
        notices: Notices,
        users: Users,
        ftp: FtpSection,
        tls: TlsSection,
    ) -> None:
        self.intake, self.notices, self.ftp, self.tls = intake, notices, ftp, tls
        files = tls.files()
        self.certificate = Certificate(*files) if files else None
        # Of a session on this port TLS is spoken before the first word.
        self.implicit_port: int | None = None
        self.passive_ports = passive_ports(ftp.passive_ports)
        # pyftpdlib's own limits count descriptors of every kind: see limits.
        self.max_cons = self.max_cons_per_ip = 0
        self.commands = Table()
        self.sessions: set[Session] = set()
        self.turns = Turns(ioloop, ftp.max_command_rate)
        self.quiet_log = QuietLog(ioloop)
        self._farewells: list[Farewell] = []
        self.is_stopping = False
        super().__init__(sock, Session, ioloop, BACKLOG)
        self.bell = Bell(ioloop)
        self.background = Background(self.bell)
        self.listings = Listings(self.background, ioloop)
        view = View(intake.spool, None, notices, None)
        self.read_ahead = ReadAhead(ioloop, self.listings, view, FACTS)
        self.passwords = Passwords(users, self.background, ioloop, ftp)

    def handle_accepted(self, sock: socket.socket, addr: tuple[Any, ...]) -> None:
        """Called with a connection: makes it a session, if there may be one more."""
        network = login.network(addr[0])
        refusal = login.refuse_connection(network, [session.network for session in self.sessions], self.ftp)
        if refusal:
            self.quiet_log.tell("turned away", network, "%s: turned away: %s", addr[0], refusal)
            self._turn_away(sock, refusal)
        else:
            super().handle_accepted(sock, addr)

    def _turn_away(self, sock: socket.socket, reply: Reply) -> None:
        self._farewells = [farewell for farewell in self._farewells if not farewell.is_over]
        if len(self._farewells) >= _MOST_FAREWELLS:
            self._farewells.pop(0).close()
        self._farewells.append(Farewell(sock, self.ioloop, reply))

    def refuse_login(self, contributor: str) -> Reply | None:
        """The reply that turns a contributor away who has enough sessions already; None: welcome."""
        return login.refuse_login(contributor, [session.contributor for session in self.sessions], self.ftp)


class ImplicitDoor(_Door):
    """A second port, for implicit FTPS. What it accepts are sessions of the Listener's."""

    def __init__(self, sock: socket.socket, listener: Listener) -> None:
        super().__init__(ioloop=listener.ioloop)
        self._listener = listener
        sock.setblocking(False)
        self.set_socket(sock)
        self.listen(BACKLOG)
        listener.implicit_port = sock.getsockname()[1]

    def handle_accepted(self, sock: socket.socket, addr: tuple[Any, ...]) -> None:
        """Called with a connection."""
        self._listener.handle_accepted(sock, addr)


class Server:
    """The FTP server, bound to its port. `run` serves until `stop`; then `close` it."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._is_looking = False

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on."""
        host, port = self._listener.address
        return str(host), int(port)

    @property
    def implicit_port(self) -> int | None:
        """The port for implicit FTPS, if there is one."""
        return self._listener.implicit_port

    def tell_tally(self, spool: Path) -> None:
        """Tell what was counted of uploads."""
        self._listener.intake.tally.tell(spool)

    def tell_judging(self, spool: Path) -> None:
        """Tell whether uploads can be checked; where they could not be, it is tried again first, in the background."""
        judges = self._listener.intake.judges
        if not judges.trouble():
            judging.tell(spool, "")
        elif not self._is_looking:
            self._is_looking = True
            self._listener.background.check(NOBODY, judges.look_again, lambda why: self._have_looked(spool, why))

    def _have_looked(self, spool: Path, why: str) -> None:
        self._is_looking = False
        judging.tell(spool, why)

    def call_every(self, seconds: float, target: Callable[[], object]) -> None:
        """Call `target` in the loop, again and again, each time after so many seconds; never if they are infinite."""
        if math.isfinite(seconds):
            self._listener.ioloop.call_every(seconds, target)

    def run(self) -> None:
        """Serve, in this thread, until `stop` is called."""
        log.info("FTP on %s port %d", *self.address)
        log.info("%s", _in_words(self._listener.tls))
        if self.implicit_port is not None:
            log.info("FTPS on %s port %d", self.address[0], self.implicit_port)
        wait_s: float | None = 0.0
        while not self._listener.is_stopping:
            wait_s = self._listener.ioloop.loop(wait_s, blocking=False)

    def stop(self) -> None:
        """Make `run` return. From any thread, and from a signal handler."""
        self._listener.is_stopping = True
        self._listener.bell.call(lambda: None)

    def close(self) -> None:
        """End all sessions, and leave no descriptor, thread or child behind. Call it when `run` has returned.

        A job whose admission was in its last moments is in the queue, and its sender told so; what was still being
        received or checked is kept, to be continued. Waits for the checks under way.
        """
        self.stop()
        self._listener.passwords.close()
        self._listener.read_ahead.close()
        for session in [session for session in self._listener.sessions if not session.is_held]:
            session.close()
        self._listener.background.close()
        for session in list(self._listener.sessions):
            session.close()
        self._listener.quiet_log.close()
        self._listener.ioloop.close()
        self._listener.intake.close()


def open_server(
    spool: Spool,
    users: Users,
    ftp: FtpSection,
    tls: TlsSection,
    gate: GateSection,
    offer: Offer,
    min_free: int,
    readme: Callable[[int], str],
) -> Server:
    """A server, listening already; port 0 takes any. `min_free` in bytes, `readme` is what /README.txt says for a port.

    Raises ConfigError and ConstruirError.
    """
    _route_log()
    check_masquerade_address(ftp.masquerade_address)
    _count_passive_ports(ftp)
    _allow_descriptors(_DESCRIPTORS_PER_SESSION * ftp.max_sessions + _OTHER_DESCRIPTORS)
    # Ten thousand of them take half a second, which nobody is to wait for later.
    spool.records("queue")
    partials = Partials(spool, ftp.max_partial_files, ftp.max_partial)
    with ExitStack() as undo:
        sock = undo.enter_context(bind(ftp.address, ftp.port, PORT))
        notices = Notices(spool, min_free, readme(sock.getsockname()[1]))
        implicit = bind(ftp.address, tls.implicit_port, "tls.implicit_port") if tls.implicit else None
        undo.enter_context(implicit or nullcontext())
        judges = undo.enter_context(JudgePool(gate, ftp.max_upload))
        judges.prepare()
        room, quotas = Room(spool, min_free), Quotas(spool, ftp)
        intake = Intake(
            spool, partials, judges, Flusher(), offer, ftp.max_upload, room, quotas, users.keyring, users.weight
        )
        ioloop = undo.enter_context(Loop())
        listener = Listener(sock, ioloop, intake, notices, users, ftp, tls)
        if implicit:
            ImplicitDoor(implicit, listener)
        undo.pop_all()
    return Server(listener)


def _count_passive_ports(ftp: FtpSection) -> None:
    ports = passive_ports(ftp.passive_ports)
    if ports is not None and len(ports) < ftp.max_sessions:
        log.warning(
            "ftp.passive_ports: %d ports for up to %d sessions; one that finds none has to try again",
            len(ports),
            ftp.max_sessions,
        )


def _allow_descriptors(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < wanted:
            log.warning("%d open files allowed, ftp.max_sessions may need %d; raise LimitNOFILE", allowed, wanted)


class _Escaping(logging.Handler):
    """pyftpdlib's own log, as ours: its lines can hold what a client has sent."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass it on."""
        log.log(record.levelno, "pyftpdlib: %a", record.getMessage())


def _route_log() -> None:
    theirs = logging.getLogger("pyftpdlib")
    theirs.handlers = [_Escaping()]
    theirs.propagate = False
    theirs.setLevel(logging.WARNING)


def _in_words(tls: TlsSection) -> str:
    """Whether TLS is spoken, and whether it has to be."""
    if not tls.certificate:
        return "TLS is off: passwords travel in clear"
    return f"TLS is on{', and required of contributors' * tls.require_tls}, with {tls.certificate}"
