"""Who is told something: a real SMTP server, a real HTTP server, and a server that never gets anywhere."""

import http.server
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import msgspec
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.support import ports

LONG_S = 60.0
REFUSED = "nobody@example.org"


class Mailbox:
    """What an SMTP server got. It takes mail for anybody but REFUSED, and from whoever knows the password, if it asks.

    While `is_busy` it refuses all mail for the moment.
    """

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], EmailMessage]] = []
        self.raw: list[bytes] = []
        self.encrypted: list[bool] = []
        self.is_busy = False
        self.port = 0

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """One recipient."""
        if self.is_busy:
            return "450 try again later"
        if address == REFUSED:
            return "550 no such user here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:
        """A mail."""
        content = envelope.content
        assert isinstance(content, bytes)
        mail = message_from_bytes(content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.raw.append(content)
        assert server.transport is not None
        self.encrypted.append(server.transport.get_extra_info("sslcontext") is not None)
        self.mails.append((list(envelope.rcpt_tos), mail))
        return "250 taken"

    def subjects(self, to: str) -> list[str]:
        """Of the mails to an address, in the order they came."""
        return [str(mail["Subject"]) for recipients, mail in self.mails if to in recipients]


@contextmanager
def smtp_server(tls: str = "none", files: tuple[Path, Path] | None = None, login: str = "") -> Iterator[Mailbox]:
    """An SMTP server on 127.0.0.1: "none", "starttls" or "tls" with a certificate and key. `login` is NAME:PASSWORD."""
    box = Mailbox()
    context = _context(files) if files else None

    def authenticate(_s: object, _n: object, _e: object, _mechanism: str, told: object) -> AuthResult:
        assert isinstance(told, LoginPassword)
        return AuthResult(success=b":".join((told.login, told.password)).decode() == login, handled=False)

    asks: dict[str, Any] = {"authenticator": authenticate, "auth_required": True} if login else {}
    asks |= {"tls_context": context, "require_starttls": True} if tls == "starttls" else {}
    controller = Controller(
        box,
        hostname="127.0.0.1",
        port=ports.free(),
        ssl_context=context if tls == "tls" else None,
        auth_require_tls=False,
        **asks,
    )
    controller.start()
    box.port = controller.port
    try:
        yield box
    finally:
        controller.stop()


def _context(files: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    return context


class Hooks:
    """What an HTTP server took: the headers and the body of each POST. `answers` are its next statuses; then 204.

    While `is_busy` it takes nothing, and answers 503.
    """

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.is_busy = False
        self.url = ""

    def bodies(self) -> list[dict[str, Any]]:
        """What came, as JSON."""
        return [msgspec.json.decode(body, type=dict[str, Any]) for _, body in self.got]

    def events(self) -> list[dict[str, Any]]:
        """All events that came, in the order they came."""
        return [event for body in self.bodies() for event in body["events"]]


@contextmanager
def web_server(files: tuple[Path, Path] | None = None) -> Iterator[Hooks]:
    """An HTTP server on 127.0.0.1, with TLS if there is a certificate and a key."""
    hooks = Hooks()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if is_taken := not hooks.is_busy:
                hooks.got.append((dict(self.headers), body))
            status = 503 if not is_taken else hooks.answers.pop(0) if hooks.answers else 204
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", f"{hooks.url}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if files:
            server.socket = _context(files).wrap_socket(server.socket, server_side=True)
        hooks.url = f"http{'s' if files else ''}://127.0.0.1:{server.server_address[1]}/hook?a=b"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hooks
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def stuck_server(says: bytes = b"", every_s: float = 0.0) -> Iterator[tuple[int, Callable[[], int]]]:
    """A server that takes connections and says nothing, or `says` byte by byte, each after `every_s`.

    Gives its port, and how many have connected.
    """
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def trickle(connection: socket.socket) -> None:
            with suppress(OSError):
                for byte in says:
                    connection.sendall(bytes([byte]))
                    time.sleep(every_s)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connections.append(server.accept()[0])
                    threading.Thread(target=trickle, args=(connections[-1],), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1], lambda: len(connections)
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()
