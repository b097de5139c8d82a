"""Clients that send the same bytes without end, over many connections, from a process of their own.

python -m tests.support.flood SETTINGS     floods until the end of its standard input; SETTINGS is JSON, see Flood
"""

import contextlib
import dataclasses
import selectors
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

PROJECT = Path(__file__).parents[2]
LONG_S = 60.0
_READ_BYTES = 1 << 16
# What a burst of pipelined commands is sent in. A flood of single bytes has one of its own.
_SENT_BYTES = 1 << 14
_MOST_WAIT_S = 0.5


@dataclasses.dataclass(frozen=True)
class Flood:
    """One of `said` is sent again and again over each of `sessions` connections, `first` before it; answers are read.

    With `piece` so many bytes are sent at a time, else as many as the socket takes. `first` is said line by line, each
    after the reply to the one before. With `certificate` the connections speak TLS, after AUTH. `sources` are the
    clients' addresses. With `reconnects` a connection that has ended is made again.
    """

    host: str
    port: int
    said: tuple[str, ...] = ("NOOP\r\n",)
    first: tuple[str, ...] = ()
    sessions: int = 64
    sources: tuple[str, ...] = ("127.0.0.1",)
    piece: int = 0
    certificate: str = ""
    reconnects: bool = False

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """Within, it goes on; every connection is made, and has been answered, at the beginning."""
        argv = ["nice", sys.executable, "-m", __name__, msgspec.json.encode(self).decode()]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "flooding\n"
                yield
                assert process.poll() is None, "it went on to the end"
            finally:
                process.communicate()


class Client:
    """One connection of a flood."""

    def __init__(self, flood: Flood, number: int) -> None:
        self.flood, self.source = flood, flood.sources[number % len(flood.sources)]
        self._said = flood.said[number % len(flood.said)].encode("latin-1")
        self._said *= 1 if flood.piece else 1 + _SENT_BYTES // len(self._said)
        self._at = 0
        self.socket = self.connect()

    def connect(self) -> socket.socket:
        """Connect, and say what comes first."""
        flood = self.flood
        connection = socket.create_connection((flood.host, flood.port), LONG_S, source_address=(self.source, 0))
        # What is in it when the connection is closed is still delivered.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SENT_BYTES)
        _reply(connection)
        if flood.certificate:
            connection.sendall(b"AUTH TLS\r\n")
            _reply(connection)
            context = ssl.create_default_context(cafile=flood.certificate)
            connection = context.wrap_socket(connection, server_hostname="localhost")
        for line in flood.first:
            connection.sendall(line.encode() + b"\r\n")
            _reply(connection)
        connection.setblocking(False)
        return connection

    def send(self) -> None:
        """Send more of it. Raises BlockingIOError or ssl.SSLWantWriteError, and OSError at the end."""
        piece = self._said[self._at : self._at + (self.flood.piece or len(self._said))]
        self._at = (self._at + self.socket.send(piece)) % len(self._said)


def _reply(connection: socket.socket) -> None:
    """Read a reply's lines, whole."""
    text = b""
    while not text.endswith(b"\r\n") or text.splitlines()[-1][3:4] == b"-":
        received = connection.recv(_READ_BYTES)
        assert received, text
        text += received


def flood_on(flood: Flood) -> None:
    """Do it until the end of standard input."""
    selector = selectors.DefaultSelector()
    both = selectors.EVENT_READ | selectors.EVENT_WRITE
    for number in range(flood.sessions):
        client = Client(flood, number)
        selector.register(client.socket, both, client)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print("flooding", flush=True)
    while True:
        for key, events in selector.select(_MOST_WAIT_S):
            if key.data is None:
                return
            try:
                _go_on(key.data, events)
            except OSError:
                selector.unregister(key.fileobj)
                key.data.socket.close()
                if flood.reconnects:
                    key.data.socket = key.data.connect()
                    selector.register(key.data.socket, both, key.data)


def _go_on(client: Client, events: int) -> None:
    if events & selectors.EVENT_READ:
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
            if not client.socket.recv(_READ_BYTES):
                raise ConnectionResetError
    if events & selectors.EVENT_WRITE:
        with contextlib.suppress(BlockingIOError, ssl.SSLWantWriteError):
            client.send()


if __name__ == "__main__":
    flood_on(msgspec.json.decode(sys.argv[1], type=Flood))
