"""A network that cuts: it stands between an FTP client and a server, and ends connections where it is told to.

Passive mode over IPv4 only; a data connection goes through it too, since it changes the address in the reply to PASV.
"""

import contextlib
import re
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.support.ftpclient import LONG_S, wait_until

# No control connection of a test carries more, no listing and no notice.
_LITTLE_BYTES = 16 * 1024


def _unread_bytes(ours: socket.socket) -> int:
    """What has come to the other end of a connection, and was not read there: a cut would lose it (proc_net_tcp)."""
    ends = f":{ours.getpeername()[1]:04X}", f":{ours.getsockname()[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines():
        _, local, remote, _, queues, *_ = line.split()
        if local.endswith(ends[0]) and remote.endswith(ends[1]):
            return int(queues.partition(":")[2], 16)
    return 0


class Cutter:
    """Of each data connection that carries more than a little as many bytes get through as the next number in `cuts`
    says; of later ones, all.

    A reply that contains `lost_reply` gets lost, once. Whatever is cut, the whole session is.
    """

    def __init__(self, target: tuple[str, int], cuts: list[int] | None = None, lost_reply: bytes = b"") -> None:
        self._target, self._cuts, self._lost_reply = target, list(cuts or []), lost_reply
        self.passed_bytes = 0
        self.sessions = 0
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(LONG_S)
            assert not thread.is_alive()

    def cut(self) -> None:
        """Cut all that goes through it now, by RST."""
        with self._lock:
            for one in self._open:
                # Whoever owns it wakes up, and closes it.
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.sessions += 1
                server = socket.create_connection(self._target, LONG_S)
                self._start(self._relay, client, server, self._changed)

    def _changed(self, piece: bytes) -> bytes:
        """What goes over a control connection: whole replies, since our server sends each in one piece."""
        if self._lost_reply and self._lost_reply in piece:
            self._lost_reply = b""
            self.cut()
            return b""
        return self._through_here(piece) if piece.startswith(b"227 ") else piece

    def _through_here(self, line: bytes) -> bytes:
        found = re.search(rb"\((\d+,\d+,\d+,\d+),(\d+),(\d+)\)", line)
        assert found, line
        listener = socket.create_server(("127.0.0.1", 0))
        self._start(self._data, listener, 256 * int(found[2]) + int(found[3]))
        high, low = divmod(listener.getsockname()[1], 256)
        return b"227 Entering passive mode (%s,%d,%d).\r\n" % (found[1], high, low)

    def _data(self, listener: socket.socket, port: int) -> None:
        with listener, contextlib.suppress(OSError):
            with self._lock:
                self._open.add(listener)
            try:
                client, _ = listener.accept()
            finally:
                with self._lock:
                    self._open.discard(listener)
            with client:  # the server may have given up the port, if its session was cut
                self._relay(client, socket.create_connection((self._target[0], port), LONG_S), self._counted(client))

    def _counted(self, client: socket.socket) -> Callable[[bytes], bytes]:
        most_bytes, poured_bytes = None, 0

        def count(piece: bytes) -> bytes:
            nonlocal most_bytes, poured_bytes
            if self._cuts and most_bytes is None and poured_bytes + len(piece) > _LITTLE_BYTES:
                most_bytes = self._cuts.pop(0)
            poured_bytes += len(piece)
            self.passed_bytes += len(piece)
            if most_bytes is not None and poured_bytes >= most_bytes:
                wait_until(lambda: _unread_bytes(client) == 0, "the client has what has passed")
                self.cut()
            return piece

        return count

    def _relay(self, client: socket.socket, server: socket.socket, change: Callable[[bytes], bytes]) -> None:
        """Pass on what comes, from either side, until both have ended or one is cut."""
        with client, server:
            with self._lock:
                self._open |= {client, server}
            with contextlib.suppress(OSError):
                self._pass_on({client: server, server: client}, change)
            with self._lock:
                self._open -= {client, server}

    def _pass_on(self, other: dict[socket.socket, socket.socket], change: Callable[[bytes], bytes]) -> None:
        open_ends = set(other)
        while open_ends:
            ready, _, _ = select.select(list(open_ends), [], [], LONG_S)
            for source in ready:
                if piece := source.recv(64 * 1024):
                    other[source].sendall(change(piece))
                else:
                    open_ends.discard(source)
                    other[source].shutdown(socket.SHUT_WR)
