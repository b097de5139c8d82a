"""The last words to a connection that is turned away: sent, and the connection closed in a way that lets them be read.

A close(2) while there is something unread makes TCP send a reset, at which the other side may throw away what it has
not read either (RFC 1122, 4.2.2.13): a client that has sent its USER at once would never learn why.
"""

import socket
from typing import Any

from pyftpdlib.ioloop import AsyncChat

_PATIENCE_S = 3
_DISCARDED_BYTES = 4096


class Farewell(AsyncChat):  # type: ignore[misc] # pyftpdlib is untyped
    """Says one line, and closes the connection once the other side has, or after three seconds."""

    def __init__(self, sock: socket.socket, ioloop: Any, reply: str) -> None:
        sock.setblocking(False)
        super().__init__(sock, ioloop)
        self.call_later(_PATIENCE_S, self.close)
        try:
            # A socket this young has room for a line.
            sock.send(f"{reply}\r\n".encode())
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()

    @property
    def is_over(self) -> bool:
        """Whether the connection is closed."""
        return bool(self._closed)

    def readable(self) -> bool:
        """Always: it is only ever read from."""
        return True

    def handle_read_event(self) -> None:
        """Called when there is something that nobody will listen to, or the other side has closed."""
        try:
            if not self.socket.recv(_DISCARDED_BYTES):
                self.close()
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def handle_error(self) -> None:
        """Called when anything else has gone wrong."""
        self.close()
