"""The data connections of an FTP session, where pyftpdlib's are too trusting.

pyftpdlib takes a connection that was cut by RST for a complete upload, says 226 before anyone has looked at it,
sends replies that nobody asked for, and takes any port once the configured ones are used up. Not here. All that
is decided about an upload, upload and session decide.
"""

import errno
import logging
import socket
from contextlib import suppress
from typing import Any

import pyftpdlib.ioloop  # noqa: F401 - comes first: it imports asyncore and silences its warning of deprecation
from pyftpdlib.handlers import DTPHandler
from pyftpdlib.handlers.ftp.dispatchers import ActiveDTP, PassiveDTP
from pyftpdlib.handlers.ftp.producers import FileProducer

from construir_ftp.errors import RefusedError
from construir_ftp.ftp.flow_control import FlowControl, Pace
from construir_ftp.ftp.ioloop import keep_alive
from construir_ftp.ftp.lingering_close import Drain, discard
from construir_ftp.ftp.tls import End, TlsConnection, reason
from construir_ftp.ftp.vfs.listing import ListingError, Reader
from construir_ftp.jobs import reply
from construir_ftp.jobs.reply import OUR_FAULT, Reply

log = logging.getLogger("construir.ftp")


_CUT = Reply(426, "Data connection cut.")

# What a client has to open its data connection after one has come from another address.
_AFTER_FOREIGN_S = 3.0

# What lies in the kernel's memory when an upload is cut is less than so many pieces of 1 MiB.
_MOST_PIECES = 16

# A client that has all of a download closes the data connection. Some do so only after the reply.
_UNCLOSED_S = 0.1

# What is sent in one go. With less of it sendfile(2) returns while there is room for more, and a quick client has gone
# to sleep meanwhile. Over TLS it counts in handle_timeout only when all of it is sent, so more is not better.
_SENDFILE_BYTES = 1 << 22
_TLS_BYTES = 1 << 18


class DataChannel(TlsConnection, DTPHandler):  # type: ignore[misc] # pyftpdlib is untyped
    """An open data connection. What is received goes to the session's upload, whatever ends it is its end."""

    ac_out_buffer_size = _SENDFILE_BYTES

    _lastdata: int
    _initialized: bool
    _resp: tuple[Any, ...]

    def __init__(self, sock: socket.socket, session: Any) -> None:
        self.timeout = session.timeout
        self._pace: Pace | None = None
        self._is_all_sent = False
        self._flow = FlowControl(self, self._turn_away)
        keep_alive(sock)
        super().__init__(sock, session)
        if session.protection.is_data_protected and self.connected:
            self.protect(session.tls_context, self.timeout, self._log_tls, with_tickets=False)

    def _log_tls(self) -> None:
        how = "resumed" if self.socket.session_reused else "new"
        log.debug("%s: data connection over %s, %s session", self.cmd_channel.who, self.socket.version(), how)

    # -- receiving ---------------------------------------------------------------------------------------------

    def enable_receiving(self, *args: Any) -> None:
        """Called when an upload begins."""
        super().enable_receiving(*args)
        ftp = self.cmd_channel.server.ftp
        self._pace = Pace(self.ioloop, ftp, lambda: self.tot_bytes_received, self._cut_off)

    def handle_read(self) -> None:
        """Called when there is something to read, or the other end is closed."""
        if self._is_all_sent:
            if discard(self.socket) == 0:
                self.handle_close()
            return
        try:
            end, must_pause = self._take()
        except RefusedError as refused:
            self._turn_away(refused)
            return
        if end is End.CUT:
            self._cut_off(_CUT)
        elif end is not None:
            self._end(end)
        elif must_pause is not None:
            self._flow.after(self.cmd_channel.upload, must_pause=must_pause)

    def _take(self) -> tuple[End | None, bool | None]:
        """Write what has come; how it ends, and whether its sender had better pause, None if nothing has come.

        Raises RefusedError where it must stop.
        """
        chunk, end = self.receive_chunk()
        self.tot_bytes_received += len(chunk)
        return end, self.cmd_channel.upload.write(chunk) if chunk else None

    def take_rest(self) -> None:
        """Write what has come already; what is on its way is not waited for."""
        if not self.receive or self.is_shaking_hands or self._closed:
            return
        try:
            for _ in range(_MOST_PIECES):
                end, must_pause = self._take()
                if end is not None or must_pause is None:
                    break
        except RefusedError as refused:
            self.cmd_channel.upload.refuse(reply.refused(refused))
        except OSError:
            log.exception("incoming %s: could not be received", self.cmd_channel.upload.job.id)
            self.cmd_channel.upload.refuse(OUR_FAULT)

    def _turn_away(self, refused: RefusedError) -> None:
        """The reply comes at once; what the client has still to send is received, so that it looks at the reply."""
        if self.is_protected:
            # Some clients, such as ftplib, wait for it before they look at the reply.
            with suppress(OSError):
                self.say_goodbye()
        self.cmd_channel.drain(Drain(self.socket.fileno(), self.ioloop))
        self._refuse(reply.refused(refused))

    def _end(self, end: End) -> None:
        """All has been received, unless a plain connection has an error pending (SO_ERROR, socket(7)).

        Where the end is not signed, the upload itself has to show that it is whole.
        """
        is_cut = not self.is_protected and self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if is_cut or (end is End.UNSIGNED and not self.cmd_channel.upload.shows_its_end):
            self._cut_off(_CUT)
            return
        if self.is_protected:
            # Some clients, such as ftplib, wait for it before they look at the reply.
            with suppress(OSError):
                self.say_goodbye()
        self.transfer_finished = True
        self.close()

    # -- sending -----------------------------------------------------------------------------------------------

    def use_sendfile(self) -> bool:
        """Whether the kernel may send the file itself; it knows nothing of TLS."""
        return not self.is_protected and bool(super().use_sendfile())

    def push_with_producer(self, producer: Any) -> None:
        """Called with what is to be sent, piece by piece."""
        if isinstance(producer, FileProducer):
            producer.buffer_size = _TLS_BYTES
        super().push_with_producer(producer)

    def initiate_send(self) -> None:
        """Called when more can be sent. While there is nothing to send yet, the loop isn't asked to call again."""
        if self.is_shaking_hands:
            return
        source = self.producer_fifo[0] if self.producer_fifo else None
        if isinstance(source, Reader) and not source.is_ready():
            self.del_channel()
            source.wait(self._send_on)
            return
        try:
            super().initiate_send()
        except ListingError as error:
            self._resp = (str(error), log.debug)
            self.close()

    def _send_on(self) -> None:
        if not self._closed:
            self.add_channel(events=self.ioloop.WRITE)

    # -- the end -----------------------------------------------------------------------------------------------

    def handle_close(self) -> None:
        """Called when all is sent, or when the other end is closed."""
        if self.receive and self.is_protected:
            self._cut_off(_CUT)
        elif self.receive:
            self._end(End.PROPER)
        elif not self._initialized:
            self.close()
        elif self._is_all_sent or self.producer_fifo:
            if self._is_all_sent:
                self.discard_buffers()  # pyftpdlib's mark of the end of an empty file, no data
            super().handle_close()
        else:
            self._end_sending()

    def _end_sending(self) -> None:
        """All is sent, which the close_notify says. asynchat ends when there is room to write, so there is for it.

        The reply waits until the client has seen the end, but not for long. If it came in one packet with the reply
        before it, some clients, such as aria2, would wait for it for ever.
        """
        try:
            if self.is_protected:
                self.say_goodbye()
        except OSError:
            self._resp = (str(_CUT), log.debug)
            self.close()
            return
        self._is_all_sent = True
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        self.call_later(_UNCLOSED_S, self.handle_close)

    def readable(self) -> bool:
        """Whether a socket with something to read is to be read from; once all is sent, its end is waited for."""
        if not (self.is_shaking_hands or self._initialized or self.receive):
            # Some clients, such as tcllib, send before they have said what: that is left to lie.
            (self.close if self.is_at_end() else self.del_channel)()
            return False
        return self._is_all_sent or bool(super().readable())

    def on_tls_failed(self, error: OSError) -> None:
        """Called when there was no handshake (RFC 4217, 10.2); if nothing was asked for yet, nothing is said."""
        self.cmd_channel.tell("no TLS on a data connection", "no TLS on a data connection: %s", reason(error))
        words = Reply(522, f"No TLS on the data connection: {reason(error)}.")
        if self.receive:
            self._cut_off(words)
        else:
            self._resp = (str(words), log.debug) if self._initialized else ()
            self.close()

    def handle_timeout(self) -> None:
        """Called every `timeout` seconds to find out whether the transfer stands still."""
        if not self.receive:
            super().handle_timeout()
        elif self.tot_bytes_received > self._lastdata:
            self._lastdata = self.tot_bytes_received
        else:
            self._cut_off(Reply(426, f"Nothing received for {self.timeout:g} s."))

    def handle_error(self) -> None:
        """Called in the handler of an exception that nobody else took."""
        if not self.receive:
            super().handle_error()
            return
        log.exception("incoming %s: could not be received", self.cmd_channel.upload.job.id)
        self._refuse(OUR_FAULT)

    def close(self) -> None:
        """Close it, and tell the session."""
        self._flow.close()
        if self._pace is not None:
            self._pace.stop()
        super().close()

    def _refuse(self, why: Reply) -> None:
        self.cmd_channel.upload.refuse(why)
        self.close()

    def _cut_off(self, why: Reply) -> None:
        self.take_rest()
        self.cmd_channel.upload.cut(why)
        self.close()


class PassiveListener(PassiveDTP):  # type: ignore[misc] # pyftpdlib is untyped
    """Waits for the client to open the data connection (PASV, EPSV)."""

    _is_missed = False

    def __init__(self, session: Any, extmode: bool = False) -> None:
        try:
            super().__init__(session, extmode)
        except OSError:
            self.close()
            raise

    def bind(self, address: tuple[Any, ...]) -> None:
        """Bind to a port; the base class's last resort, a port outside of the configured ones, is an error."""
        if self.cmd_channel.passive_ports and len(address) == 2 and not address[1]:
            raise OSError(errno.EADDRINUSE, "every passive port is in use")
        super().bind(address)

    def handle_accepted(self, sock: socket.socket, addr: tuple[Any, ...]) -> None:
        """Called with a connection; one from another address is dropped.

        Anybody may have made it. So the session's own has still some time to come, and then the session is told.
        """
        if addr[0] != self.cmd_channel.remote_ip:
            text = "dropped a data connection from %s"
            self.cmd_channel.tell("dropped a data connection", text, addr[0], level=logging.WARNING)
            sock.close()
            if not self._is_missed:
                self._is_missed = True
                self.call_later(_AFTER_FOREIGN_S, self._give_up, addr[0].removeprefix("::ffff:"))
            return
        super().handle_accepted(sock, addr)

    def _give_up(self, address: str) -> None:
        self.close()
        here = self.cmd_channel.client_address()
        self.cmd_channel.on_no_data_connection(f"One came from {address}, and this session is from {here}.")

    def handle_timeout(self) -> None:
        """Called when nobody has connected in time."""
        self.close()
        self.cmd_channel.on_no_data_connection()


class ActiveConnector(ActiveDTP):  # type: ignore[misc] # pyftpdlib is untyped
    """Connects to the client (PORT, EPRT); the session reads no further command until that has come to its end."""

    def handle_timeout(self) -> None:
        """Called when the client has not answered in time."""
        self.handle_close()

    def close(self) -> None:
        """Give up; after a connection was made, this object is no longer asked."""
        super().close()
        self.cmd_channel.proceed_soon()
