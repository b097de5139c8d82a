"""A client of the FTP server that sends anything: commands, a handshake, data."""

import socket
import ssl
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.fuzz.targets import Attempt, Settle
from tests.support.ftpclient import LONG_S, PASSWORD, House, serving, wait_until
from tests.support.ftpgrammar import RESULT, first_reply
from tests.support.tlsclient import make_certificate, strict_context, tls_section

# Between pieces the client waits for a reply, or for a moment; after this one comes what the data connection is sent.
_PAUSE, _DATA = b"\n--\n", b"\n==\n"
_MOMENT_S = 0.01
_LOGIN, _TLS, _PASSIVE, _RUDE = 1, 2, 4, 8


class _Client:
    """One session. All that it is replied is looked at."""

    def __init__(self, house: House) -> None:
        self.socket: socket.socket = socket.create_connection(house.server.address, LONG_S)
        self.unread = b""
        self.replies: list[str] = []

    def hear(self, patience_s: float) -> bool:
        """Take in what has come, if anything does; whether the connection is still there."""
        self.socket.settimeout(patience_s)
        try:
            received = self.socket.recv(65536)
        except TimeoutError:
            return True
        except (OSError, ValueError):
            return False
        self.unread += received
        while (found := first_reply(self.unread)) is not None:
            self.replies.append(found[0])
            self.unread = found[1]
        return bool(received)

    def ask(self, line: str) -> str:
        """The reply to a command, unless the session is over."""
        count = len(self.replies)
        with suppress(OSError):
            self.socket.sendall(f"{line}\r\n".encode())
        while len(self.replies) == count and self.hear(LONG_S):
            pass
        return self.replies[-1]

    def prepare(self, wanted: int, context: ssl.SSLContext) -> socket.socket | None:
        """Do what the first byte asks for; the data connection."""
        while not self.replies and self.hear(LONG_S):
            pass
        if wanted & _TLS:
            assert self.ask("AUTH TLS").startswith("234")
            self.socket.settimeout(LONG_S)
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        if wanted & _LOGIN:
            self.ask("USER alice")
            assert self.ask(f"PASS {PASSWORD}").startswith("230")
        if wanted & _LOGIN and wanted & _PASSIVE:
            port = int(self.ask("EPSV").split("|")[3])
            return socket.create_connection((self.socket.getpeername()[0], port), LONG_S)
        return None

    def end(self, is_rude: bool) -> None:
        """Send no more, and hear all there is to be heard; or leave."""
        with suppress(OSError):
            if not is_rude and not isinstance(self.socket, ssl.SSLSocket):
                self.socket.shutdown(socket.SHUT_WR)
                while self.hear(LONG_S):
                    pass
        self.socket.close()


def _visit(house: House, context: ssl.SSLContext, data: bytes) -> None:
    wanted, (said, _, upload) = (data or b"\0")[0], data[1:].partition(_DATA)
    client = _Client(house)
    try:
        sending = client.prepare(wanted, context)
        for piece in said.split(_PAUSE):
            with suppress(OSError):
                client.socket.sendall(piece)
            client.hear(_MOMENT_S)
        if sending is not None:
            with sending, suppress(OSError):
                sending.sendall(upload)
            client.hear(_MOMENT_S)
    finally:
        client.end(bool(wanted & _RUDE))


@contextmanager
def target() -> Iterator[tuple[Attempt, Settle]]:
    """Whatever is sent, there are replies as RFC 959 has them, and an end."""
    # ssl leaves a connection that is reset to the garbage collector.
    warnings.simplefilter("ignore", ResourceWarning)
    with tempfile.TemporaryDirectory() as name:
        files = make_certificate(Path(name))
        tls = tls_section(files)
        with serving(Path(name), tls=tls, max_wrong_password_pause="10ms", max_command_rate=1_000_000) as house:
            house.publish(RESULT, {"output.log": b"hello\n" * 1000})
            context = strict_context(files[0])

            def settle() -> None:
                wait_until(house.is_quiet, "every session has ended")

            yield lambda data: _visit(house, context, data), settle
