"""An FTP server that says and sends whatever it is told to, without end if need be, and counts how much of it went."""

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Self

from tests.support.ftpclient import LONG_S

# Whoever takes so much has no bound.
FAR_TOO_MUCH_BYTES = 256 * 2**20

Bytes = Callable[[], Iterable[bytes]]


def once(content: bytes) -> Bytes:
    return lambda: [content]


def endless(content: bytes, head: bytes = b"") -> Bytes:
    block = content * max(1, 65536 // len(content))
    return lambda: itertools.chain([head], itertools.repeat(block, FAR_TOO_MUCH_BYTES // len(block)))


def dripping(content: bytes, pause_s: float) -> Bytes:
    def drops() -> Iterator[bytes]:
        for _ in range(1000):
            yield content
            time.sleep(pause_s)

    return drops


_ORDINARY = {
    "greeting": once(b"220 Hello\r\n"),
    "USER": once(b"331 Who?\r\n"),
    "PASS": once(b"230 Welcome\r\n"),
    "TYPE": once(b"200 Yes\r\n"),
    "REST": once(b"350 Yes\r\n"),
    "150": once(b"150 Here it comes\r\n"),
    "226": once(b"226 That was it\r\n"),
}


class HostileServer:
    """`said` has replies by their command, with its argument or without, and `greeting`, `150` and `226`; `sent` has
    what comes of RETR and NLST.

    `sent_bytes` is what the kernel took of both, which holds some megabytes of it itself.
    """

    def __init__(self, said: dict[str, Bytes], sent: dict[str, Bytes] | None = None) -> None:
        self._said, self._sent = {**_ORDINARY, **said}, sent or {}
        self.sent_bytes = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(LONG_S)
            assert not thread.is_alive()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.settimeout(LONG_S)
                self._threads.append(threading.Thread(target=self._session, args=[client]))
                self._threads[-1].start()

    def _session(self, client: socket.socket) -> None:
        data = socket.create_server(("127.0.0.1", 0))
        data.settimeout(LONG_S)
        with client, data, contextlib.suppress(OSError), client.makefile("rb", buffering=0) as lines:
            self._send(client, self._said["greeting"])
            while line := lines.readline():
                word, _, argument = line.decode().strip().partition(" ")
                if word == "PASV" and word not in self._said:
                    high, low = divmod(data.getsockname()[1], 256)
                    self._send(client, once(f"227 Here (127,0,0,1,{high},{low})\r\n".encode()))
                elif word in ("RETR", "NLST") and argument in self._sent:
                    self._send(client, self._said["150"])
                    with data.accept()[0] as connection:
                        self._send(connection, self._sent[argument])
                    self._send(client, self._said["226"])
                else:
                    if word in ("RETR", "NLST") and "PASV" not in self._said:
                        data.accept()[0].close()
                    self._send(client, self._said.get(f"{word} {argument}", self._said.get(word, once(b"550 No\r\n"))))

    def _send(self, connection: socket.socket, what: Bytes) -> None:
        connection.settimeout(LONG_S)
        for piece in what():
            connection.sendall(piece)
            self.sent_bytes += len(piece)
