"""The FTP server: contributors put jobs into /queue, anyone fetches results from /done.

One event loop, pyftpdlib's, in the thread that calls `run`; what takes longer than a few milliseconds is done in
the background. Never looks into what it receives: that is for gate. Meets the runner in the spool only.
"""

import ipaddress
import logging
import math
import re
import resource
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import Any

from pyftpdlib.ioloop import Acceptor
from pyftpdlib.servers import FTPServer

from construir_ftp.config import FtpSection, GateSection, TlsSection
from construir_ftp.errors import ConfigError, ConstruirError
from construir_ftp.ftp import login
from construir_ftp.ftp.certificate import Certificate
from construir_ftp.ftp.commands.table import Table
from construir_ftp.ftp.ioloop import Background, Bell, Loop
from construir_ftp.ftp.lingering_close import Farewell
from construir_ftp.ftp.passwords import Passwords
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
from construir_ftp.intake.judge_pool import JudgePool
from construir_ftp.intake.quota import Quotas
from construir_ftp.intake.upload import Intake
from construir_ftp.jobs.disk_space import Room
from construir_ftp.jobs.reply import Reply
from construir_ftp.jobs.spool import Spool
from construir_ftp.layers.resolver import Offer

log = logging.getLogger("construir.ftp")

# Connections that wait to be accepted. Of more than there may be, the kernel drops the last packet of the handshake:
# the client takes itself for connected, and waits for a greeting, perhaps for ever.
_BACKLOG = 1024
# A session has at most: control connection, one waiting for or being the data connection, a file, a pipe to a child.
_DESCRIPTORS_PER_SESSION = 4
_MOST_FAREWELLS = 64
_OTHER_DESCRIPTORS = 128 + _MOST_FAREWELLS
_PAUSE_S = 1
# What the kernel keeps of a control connection that is not read; by itself that grows to 6 MB (tcp(7): tcp_rmem).
_CONTROL_BUFFER_BYTES = 1 << 15
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
        super().__init__(sock, Session, ioloop, _BACKLOG)
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
        self.listen(_BACKLOG)
        listener.implicit_port = sock.getsockname()[1]

    def handle_accepted(self, sock: socket.socket, addr: tuple[Any, ...]) -> None:
        """Called with a connection."""
        self._listener.handle_accepted(sock, addr)


class Server:
    """The FTP server, bound to its port. `run` serves until `stop`; then `close` it."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on."""
        host, port = self._listener.address
        return str(host), int(port)

    @property
    def implicit_port(self) -> int | None:
        """The port for implicit FTPS, if there is one."""
        return self._listener.implicit_port

    def call_every(self, seconds: float, target: Callable[[], object]) -> None:
        """Call `target` in the loop, again and again, each time after so many seconds; never if they are infinite."""
        if math.isfinite(seconds):
            self._listener.ioloop.call_every(seconds, target)

    def run(self) -> None:
        """Serve, in this thread, until `stop` is called."""
        log.info("FTP on %s port %d", *self.address)
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
    _check_masquerade_address(ftp.masquerade_address)
    _count_passive_ports(ftp)
    _allow_descriptors(_DESCRIPTORS_PER_SESSION * ftp.max_sessions + _OTHER_DESCRIPTORS)
    # Ten thousand of them take half a second, which nobody is to wait for later.
    spool.records("queue")
    partials = Partials(spool, ftp.max_partial_files, ftp.max_partial)
    with ExitStack() as undo:
        sock = undo.enter_context(_bind(ftp.address, ftp.port, "--port"))
        notices = Notices(spool, min_free, readme(sock.getsockname()[1]))
        implicit = _bind(ftp.address, tls.implicit_port, "tls.implicit_port") if tls.implicit else None
        undo.enter_context(implicit or nullcontext())
        judges = undo.enter_context(JudgePool(gate, ftp.max_upload))
        judges.prepare()
        room, quotas = Room(spool, min_free), Quotas(spool, ftp)
        intake = Intake(spool, partials, judges, Flusher(), offer, ftp.max_upload, room, quotas)
        ioloop = undo.enter_context(Loop())
        listener = Listener(sock, ioloop, intake, notices, users, ftp, tls)
        if implicit:
            ImplicitDoor(implicit, listener)
        undo.pop_all()
    return Server(listener)


def passive_ports(text: str) -> list[int] | None:
    """ "60000-60100" -> the ports; "" -> None, any. Raises ConfigError."""
    if not text:
        return None
    match = re.fullmatch(r"\s*(\d{1,5})\s*-\s*(\d{1,5})\s*", text, re.ASCII)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 0 < first <= last <= 65535:
        raise ConfigError(f'ftp.passive_ports: expected a range of ports such as "60000-60100", got {text!a}')
    return list(range(first, last + 1))


def _count_passive_ports(ftp: FtpSection) -> None:
    ports = passive_ports(ftp.passive_ports)
    if ports is not None and len(ports) < ftp.max_sessions:
        log.warning(
            "ftp.passive_ports: %d ports for up to %d sessions; one that finds none has to try again",
            len(ports),
            ftp.max_sessions,
        )


def _check_masquerade_address(text: str) -> None:
    # It goes into the reply to PASV, which has room for an IPv4 address only (RFC 959); EPSV needs none.
    try:
        if text:
            ipaddress.IPv4Address(text)
    except ValueError as error:
        raise ConfigError(f"ftp.masquerade_address: expected an IPv4 address, got {text!a}") from error


def _bind(address: str, port: int, chosen_by: str) -> socket.socket:
    is_v6 = ":" in address
    try:
        sock = socket.create_server(
            (address, port),
            family=socket.AF_INET6 if is_v6 else socket.AF_INET,
            backlog=_BACKLOG,
            dualstack_ipv6=address == "::",
        )
    except OSError as error:
        remedy = f"choose others with ftp.address and {chosen_by}"
        raise ConstruirError(f"FTP can't listen on {address} port {port}: {error.strerror}; {remedy}") from error
    # What it accepts inherits it.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _CONTROL_BUFFER_BYTES)
    return sock


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
