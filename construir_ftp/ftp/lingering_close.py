"""What still comes of an upload that is refused already: received and thrown away, within bounds.

Closing a connection with data unread resets it, and curl, ftplib, ncftpput and others then say "connection reset"
and never look at the reply. They look once they have sent everything. lftp and FileZilla stop as soon as they are told.
"""

import os
import socket
from typing import Any

from pyftpdlib.ioloop import AsyncChat

from construir_ftp.jobs.reply import Reply

# Lent to the kernel, which writes nothing into it.
_SCRATCH = bytearray(1 << 20)
# A GiB on a fast network; over a slow one nobody is kept sending for nothing.
_MOST_S = 30.0
_MOST_BYTES = 2 * 2**30


def discard(sock: socket.socket) -> int | None:
    """Throw away what has come, whatever protocol it is of: how many bytes, 0 at the end, None if nothing has come."""
    try:
        # The kernel throws it away by itself: tcp(7), MSG_TRUNC. An SSLSocket's own knows no flags.
        return socket.socket.recv_into(sock, _SCRATCH, 0, socket.MSG_TRUNC)
    except BlockingIOError:
        return None
    except OSError:
        return 0


class Drain(AsyncChat):  # type: ignore[misc] # pyftpdlib is untyped
    """Takes over a data connection, whose `descriptor` may be closed then, until its client closes it or is late."""

    def __init__(self, descriptor: int, ioloop: Any) -> None:
        self._left_bytes = _MOST_BYTES
        super().__init__(socket.socket(fileno=os.dup(descriptor)), ioloop)
        self.call_later(_MOST_S, self.close)

    def readable(self) -> bool:
        """Always: it is only ever read from."""
        return True

    def handle_read_event(self) -> None:
        """Called when there is more of it, or the client has closed the connection."""
        count = discard(self.socket)
        self._left_bytes -= count or 0
        if count == 0 or self._left_bytes < 0:
            self.close()

    def handle_error(self) -> None:
        """Called when anything else has gone wrong."""
        self.close()


# -- farewells ---------------------------------------------------------------------------------------------------

# The last words to a connection that is turned away: sent, and the connection closed in a way that lets them be read.
# A close(2) while there is something unread makes TCP send a reset, at which the other side may throw away what it has
# not read either (RFC 1122, 4.2.2.13): a client that has sent its USER at once would never learn why.
_PATIENCE_S = 3
_DISCARDED_BYTES = 4096


class Farewell(AsyncChat):  # type: ignore[misc] # pyftpdlib is untyped
    """Says one line, and closes the connection once the other side has, or after three seconds."""

    def __init__(self, sock: socket.socket, ioloop: Any, words: Reply) -> None:
        sock.setblocking(False)
        super().__init__(sock, ioloop)
        self.call_later(_PATIENCE_S, self.close)
        try:
            # A socket this young has room for a line.
            sock.send(f"{words}\r\n".encode())
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
