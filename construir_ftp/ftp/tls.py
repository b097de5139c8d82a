"""TLS on a connection of pyftpdlib's event loop, by the standard library's ssl.

pyftpdlib's own needs PyOpenSSL, and loses the end of uploads (its issue 602). Here a connection waits for nothing:
what OpenSSL can't finish now, it goes on with when the socket is ready. Knows nothing of FTP: who speaks TLS, and
when, protection and data decide.
"""

import errno
import select
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Any

from pyftpdlib.ioloop import AsyncChat

from construir_ftp.ftp import client_hello
from construir_ftp.ftp.certificate import ALPN

# A handshake that is not done after this time is given up; or after the idle timeout, if that is shorter.
HANDSHAKE_S = 30.0

# While the rest of a client's hello is waited for.
_LONGEST_WAIT_S = 0.5

# The most that one record holds (RFC 8446, 5.1). Reading never asks for less: the rest of a record would lie in
# OpenSSL's memory, and a socket with nothing more in it does not wake the loop.
_RECORD_BYTES = 1 << 14

# One for all connections: whoever reads into it is done with it before the loop goes on. Measured: reading 1 MiB at
# once nearly doubles the throughput of pyftpdlib's default, 64 KiB.
_BUFFER = memoryview(bytearray(1 << 20))

# OpenSSL's own number, where tickets are sent at all: SSL_CTX_set_num_tickets(3).
_TICKETS = 2


class End(Enum):
    """How what a client sends ends. UNSIGNED: over TLS, closed without a close_notify (RFC 8446, 6.1).

    Anybody on the way can have written such an end, and .NET, Mono and others write it after every upload.
    """

    PROPER = 1
    UNSIGNED = 2
    CUT = 3


class TlsConnection(AsyncChat):  # type: ignore[misc] # pyftpdlib is untyped
    """A connection that may begin to speak TLS at any time. The base of control and data connections."""

    # pyftpdlib's own, whose first value says too little of its type.
    socket: Any

    # Called when the handshake is over; as long as there is one, nothing else goes over the connection.
    _after_handshake: Callable[[], None] | None = None

    _is_hello_heard = True

    @property
    def is_protected(self) -> bool:
        """Whether TLS is spoken, or a handshake has begun."""
        return isinstance(self.socket, ssl.SSLSocket)

    @property
    def is_shaking_hands(self) -> bool:
        """Whether the handshake is not over yet."""
        return self._after_handshake is not None

    def protect(
        self, context: ssl.SSLContext, deadline_s: float, then: Callable[[], None], *, with_tickets: bool
    ) -> None:
        """Speak TLS from now on, and call `then` after the handshake; `on_tls_failed` if there is none in time.

        Session tickets of TLS 1.3 are sent when a handshake is over. A client that only uploads never reads them, and
        closing a socket with something unread resets the connection (RFC 2525, 2.17): what is still on its way is lost.
        """
        # SSL_new(3) copies the number: it is this connection's, and the next one has its own.
        context.num_tickets = _TICKETS if with_tickets else 0
        try:
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False
            )
        except OSError as error:
            self.on_tls_failed(error)
            return
        deadline = self.call_later(min(deadline_s, HANDSHAKE_S), self._give_up)

        def done() -> None:
            deadline.cancel()
            then()

        # The client speaks first: there is nothing to do until the loop says so.
        self._after_handshake, self._is_hello_heard = done, False

    def on_tls_failed(self, error: OSError) -> None:
        """Called when there can be no TLS; ssl.SSLError is an OSError."""
        raise NotImplementedError

    def say_goodbye(self) -> None:
        """Tell the other end that nothing more comes (close_notify). Raises OSError if that can't be sent at once."""
        try:
            self.socket.unwrap()
        except ssl.SSLWantWriteError:
            raise
        except ssl.SSLError:
            # Ours is sent; theirs has not come yet, or won't: SSL_shutdown(3).
            pass

    def is_hung_up(self) -> bool:
        """Whether the other end sends nothing more, although what it has sent may not be read yet. For any thread."""
        poller = select.poll()
        # What was sent before the end of the connection would hide it from a read. poll(2): POLLRDHUP.
        poller.register(self.socket.fileno(), select.POLLRDHUP)
        return bool(poller.poll(0))

    def _hear_hello(self, wait_s: float = 0.01) -> None:
        """Go on with a client that names FTP among its protocols, or names none. All of its hello has to be there."""
        try:
            # Only looked at. SSLSocket's own recv knows no flags.
            begun = socket.socket.recv(self.socket, client_hello.MOST_BYTES, socket.MSG_PEEK)
        except OSError:
            begun = b""
        named = client_hello.protocols(begun)
        if named is None and self.is_hung_up():
            self.on_tls_failed(ConnectionResetError(errno.ECONNRESET, "closed before the end of its hello"))
        elif named is None:
            # The loop would call at once, since there is something to read.
            self.del_channel()
            self.call_later(wait_s, self._hear_hello, min(2 * wait_s, _LONGEST_WAIT_S))
        elif named and ALPN.encode() not in named:
            with suppress(OSError):
                socket.socket.send(self.socket, client_hello.NO_APPLICATION_PROTOCOL)
            self.on_tls_failed(OSError(errno.EPROTO, "the client speaks other protocols than ftp (ALPN)"))
        else:
            self._is_hello_heard = True
            self._shake_hands()

    def _shake_hands(self) -> None:
        if not self._is_hello_heard:
            self._hear_hello()
            return
        try:
            self.socket.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(self.ioloop.READ)
        except ssl.SSLWantWriteError:
            self._watch(self.ioloop.WRITE)
        except OSError as error:
            self.on_tls_failed(error)
        else:
            then, self._after_handshake = self._after_handshake, None
            self._watch(self._wanted_io_events)
            assert then is not None
            then()

    def _give_up(self) -> None:
        self.on_tls_failed(TimeoutError(errno.ETIMEDOUT, "no handshake in time"))

    def _watch(self, events: int) -> None:
        super().modify_ioloop_events(events)

    # -- reading and writing -------------------------------------------------------------------------------

    def receive_chunk(self) -> tuple[memoryview, End | None]:
        """What has come, 1 MiB at most, to be used at once; and what kind of end came behind it, if one did.

        Nothing may have come.
        """
        if self.is_protected:
            return self._receive_records()
        try:
            count = self.socket.recv_into(_BUFFER)
        except BlockingIOError:
            return _BUFFER[:0], None
        except OSError:
            return _BUFFER[:0], End.CUT
        return _BUFFER[:count], None if count else End.PROPER

    def _receive_records(self) -> tuple[memoryview, End | None]:
        filled, end = 0, None
        try:
            while end is None and filled + _RECORD_BYTES <= len(_BUFFER):
                count = self.socket.recv_into(_BUFFER[filled:])
                filled, end = filled + count, None if count else End.PROPER
        except ssl.SSLWantReadError:
            pass
        except OSError as error:
            end = End.UNSIGNED if _is_end(error) else End.CUT
        return _BUFFER[:filled], end

    def is_at_end(self) -> bool:
        """Whether nothing is left to read, and nothing will come."""
        try:
            return not socket.socket.recv(self.socket, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def recv(self, buffer_size: int) -> bytes:
        """Called by asynchat for what has come. Raises BlockingIOError if there is nothing."""
        if not self.is_protected:
            data: bytes = super().recv(buffer_size)
            return data
        try:
            received: bytes = self.socket.recv(max(buffer_size, _RECORD_BYTES))
        except ssl.SSLWantReadError as error:
            raise BlockingIOError from error
        except OSError:
            # SSLWantWriteError too: without renegotiation only what is broken has to write before it can read.
            received = b""
        if not received:
            self.handle_close()
        return received

    def send(self, data: bytes) -> int:
        """Called by asynchat; how much was sent. OpenSSL wants to see again, unchanged, what it could not send."""
        if not self.is_protected:
            return int(super().send(data))
        if self.is_shaking_hands:
            return 0
        try:
            return int(super().send(data))
        except ssl.SSLWantWriteError:
            return 0
        except ssl.SSLError:
            self.handle_close()
            return 0

    # -- called by the loop ----------------------------------------------------------------------------------

    def readable(self) -> bool:
        """Whether a socket with something to read is to be read from."""
        return self.is_shaking_hands or bool(super().readable())

    def writable(self) -> bool:
        """Whether a socket with room is to be written to."""
        return self.is_shaking_hands or bool(super().writable())

    def handle_read_event(self) -> None:
        """Called when there is something to read, or the other end is closed."""
        if self.is_shaking_hands:
            self._shake_hands()
        else:
            self.handle_read()

    def handle_write_event(self) -> None:
        """Called when there is room to write."""
        if self.is_shaking_hands:
            self._shake_hands()
        else:
            super().handle_write_event()

    def modify_ioloop_events(self, events: int, logdebug: bool = False) -> None:
        """Called with what the connection waits for; the handshake comes first."""
        if not self.is_shaking_hands:
            super().modify_ioloop_events(events, logdebug)


def _is_end(error: OSError) -> bool:
    """Whether OpenSSL has met the end of the connection, and not a reset: SSL_get_error(3)."""
    return isinstance(error, ssl.SSLError) and error.reason == "UNEXPECTED_EOF_WHILE_READING"


def reason(error: OSError) -> str:
    """What a failure of TLS was, in the library's words; one printable line."""
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return (reason or type(error).__name__).lower().replace("_", " ")
