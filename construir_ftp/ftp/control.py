"""The control connection of an FTP session: one command after the other, each with its reply.

pyftpdlib obeys a command the moment it comes, whatever is under way, and in the middle of a pause. Here a command
waits for its turn (see turns), and until the one before it is done; while an answer comes from elsewhere (`hold`)
nothing is read at all. What a transfer is for is no concern of this module: see session.
"""

import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pyftpdlib.ioloop  # comes first: it imports asyncore and silences its warning of deprecation
from pyftpdlib.exceptions import _RetryError
from pyftpdlib.handlers import FTPHandler

from construir_ftp.ftp.lines import LONGEST_BYTES, Lines, is_http
from construir_ftp.ftp.quiet_log import SessionLog
from construir_ftp.ftp.tls import TlsConnection, reason
from construir_ftp.jobs.reply import Reply

log = logging.getLogger("construir.ftp")

# What is read at a time; over TLS it is a record. All that has come is obeyed before more is read.
_READ_BYTES = 4096
_MOST_UNREAD_REPLIES = 16
_MOST_UNREAD_BYTES = 1 << 16
_UNREAD_S = 5
# Many replies repeat what they answer: with one of these in it a client would take the rest for another reply.
_IN_NO_COMMAND = frozenset(b"\0\r\n")


class ControlConnection(TlsConnection, SessionLog, FTPHandler):  # type: ignore[misc] # pyftpdlib is untyped
    """What Session builds on. `server` is the Listener that accepted it."""

    # pyftpdlib's own, whose first values say too little of their types.
    _in_buffer: list[bytes]
    _wanted_io_events: int
    _restart_position: int
    _in_dtp_queue: tuple[Any, str] | None
    _out_dtp_queue: tuple[Any, bool, Any, str] | None
    data_channel: Any
    _dtp_acceptor: Any
    _dtp_connector: Any
    _closed: bool
    remote_ip: str
    network: str

    def __init__(self, conn: socket.socket, server: Any, ioloop: Any = None) -> None:
        self.tls_context: ssl.SSLContext | None = None
        self.is_held = False
        self.is_sending = False
        self._is_replying = False
        self._lines = Lines()
        self._is_reading = True
        super().__init__(conn, server, ioloop)

    def is_busy(self) -> bool:
        """Whether a command has not come to its end yet: an answer to come, a download, a connection to be made.

        Nor has one whose reply is not read: were those after it obeyed, their replies would fill our memory.
        """
        return self.is_held or self.is_sending or self.is_connecting() or self.is_unread()

    def is_connecting(self) -> bool:
        """Whether a data connection is being made, to which there is no reply yet (PORT, EPRT)."""
        return self._dtp_connector is not None and not self._dtp_connector._closed

    def is_unread(self) -> bool:
        """Whether more replies wait to be read by the client than ought to."""
        unread = self.producer_fifo
        return len(unread) > _MOST_UNREAD_REPLIES or sum(map(len, filter(None, unread))) > _MOST_UNREAD_BYTES

    def close(self) -> None:
        """Close the connection, with a close_notify if TLS is spoken and there is room for one."""
        if self.is_protected and not self._closed:
            with suppress(OSError, ValueError):
                self.say_goodbye()
        super().close()
        self._lines.clear()
        self.server.turns.leave(self)

    def close_when_done(self) -> None:
        """Close once what was replied is sent, which is nothing during a handshake; for a client that doesn't read it
        nobody waits long.
        """
        if self.is_shaking_hands:
            self.close()
            return
        super().close_when_done()
        if not self._closed:
            self.call_later(_UNREAD_S, self.close)

    # -- replies out ---------------------------------------------------------------------------------------

    def say(self, words: Reply) -> None:
        """Send a reply."""
        *body, last = str(words).split("\r\n")
        if body:
            self.push("".join(f"{line}\r\n" for line in body))
        self.respond(last)

    def dismiss(self, words: Reply) -> None:
        """Say so, and close the connection."""
        if self.is_held:
            self.resume()
        self.say(words)
        self.close_when_done()

    def push(self, data: str) -> None:
        """Called with what is to be replied; during a handshake nobody could read it."""
        if self.is_shaking_hands:
            return
        self._is_replying = True
        try:
            super().push(data)
        finally:
            self._is_replying = False

    def handle_close(self) -> None:
        """Called when the other end is closed. Whoever is replying goes on with the session, so that is closed later.

        A transfer that ends replies so in the midst of its end, and pyftpdlib's loop would not have survived that.
        """
        if self._is_replying:
            self.call_later(0, self.close)
        else:
            self.close()

    # -- lines in ------------------------------------------------------------------------------------------

    def handle_read(self) -> None:
        """Called when there is something to read, or the other end is closed."""
        if not self._may_read():
            self._is_reading = False
            self._watch_events()
            return
        try:
            data = self.recv(_READ_BYTES)
        except (BlockingIOError, _RetryError):
            return
        if data:
            # What brings no line has its turn as well: bytes without end are no cheaper for others than commands.
            self._lines.feed(data)
            self.server.turns.line_up(self)

    def _may_read(self) -> bool:
        if self._closing or self.is_held or self.server.turns.has(self):
            return False
        # During a transfer what is read on is for ABOR and STAT.
        return not self._lines or (self.is_busy() and not self._lines.is_full)

    def _read_on(self) -> None:
        if not self._is_reading and self._may_read():
            self._is_reading = True
            self._watch_events()

    def _watch_events(self) -> None:
        """Have the loop tell of what this connection now waits for."""
        if self._closed or self.is_held:
            return
        events = self._events()
        if events != self._wanted_io_events and not self.is_shaking_hands:
            self.ioloop.modify(self._fileno, events)
            self._current_io_events = events
        self._wanted_io_events = events

    def _events(self) -> int:
        reading = self.ioloop.READ if self._is_reading else 0
        return int(reading | (self.ioloop.WRITE if self.producer_fifo else 0))

    def take_turn(self) -> bool:
        """Called by turns: obey one line, if there is one that can be obeyed; whether there is another."""
        try:
            if self._has_next():
                self._obey(self._lines.next_urgent() if self.is_busy() else self._lines.next())
            if self._has_next():
                return True
            if not self._closed:
                self._read_on()
        except Exception:  # noqa: BLE001 - handle_error logs it, and closes the session
            self.handle_error()
        return False

    def _has_next(self) -> bool:
        """Whether a line can be obeyed now. ABOR and STAT are for the command under way, all else waits for its end."""
        if self._closed or self._closing or self.is_held or self.is_unread():
            return False
        return self._lines.has_urgent if self.is_busy() else len(self._lines) > 0

    def _obey(self, line: bytes) -> None:
        if len(line) > LONGEST_BYTES:
            self.say(Reply(500, "Command too long."))
        elif not _IN_NO_COMMAND.isdisjoint(line):
            self.say(Reply(501, "A command can't hold a NUL, CR or LF."))
        elif is_http(line):
            # What a browser is made to send may hold FTP commands further on (ALPACA): the session ends before them.
            self.dismiss(Reply(421, "This is FTP, and not HTTP."))
        else:
            self._in_buffer = [line]
            self.found_terminator()

    def initiate_send(self) -> None:
        """Called when replies can be sent. pyftpdlib's own would have the loop read on in any case."""
        super(pyftpdlib.ioloop.AsyncChat, self).initiate_send()
        self._watch_events()
        self.proceed_soon()

    def forget_unread(self) -> None:
        """Throw away all that has come and was not obeyed yet."""
        self._lines.clear()
        self.server.turns.leave(self)
        self._read_on()

    def proceed_soon(self) -> None:
        """A command may have come to its end: those that have waited for it are next."""
        if self._has_next():
            self.server.turns.line_up(self)
        elif not self._closed:
            self._read_on()

    def hold(self) -> None:
        """Read no further until `resume`: an answer comes from a thread, or a pause has to end."""
        self.is_held = True
        if not self._closed:
            self.del_channel()
            self._idler.cancel()

    def resume(self) -> None:
        """Go on reading; what is replied now comes before the replies to the commands that have waited."""
        self.is_held = False
        if not self._closed:
            self._is_reading = True
            self.add_channel(events=self._events())
            self._idler = self.ioloop.call_later(self.timeout, self.handle_timeout, _errback=self.handle_error)
            self.proceed_soon()

    # -- the data connection --------------------------------------------------------------------------------

    def has_data_connection(self) -> bool:
        """Whether there is one, or one may come any moment."""
        is_listening = self._dtp_acceptor is not None and not self._dtp_acceptor._closed
        return is_listening or self.data_channel is not None

    def _make_epasv(self, extmode: bool = False) -> None:
        try:
            super()._make_epasv(extmode)
        except OSError as error:
            self.tell("no data connection", "no data connection: %s", error, level=logging.WARNING)
            self.say(Reply(425, "No port is free for a data connection; try again later."))

    def _make_eport(self, ip: str, port: int) -> None:
        # pyftpdlib compares texts: an IPv6 address can be written in many ways, and a link's own has a scope.
        client = self.client_address()
        try:
            is_own = ipaddress.ip_address(ip.partition("%")[0]) == ipaddress.ip_address(client.partition("%")[0])
        except ValueError:
            self.say(Reply(501, "That is no address."))
        else:
            super()._make_eport(client if is_own else ip, port)

    def client_address(self) -> str:
        """The client's address; an IPv4 address as such, although an IPv6 socket has another name for it (RFC 4291)."""
        return self.remote_ip.removeprefix("::ffff:")

    def push_dtp_data(self, *args: Any, **kwargs: Any) -> None:
        """Called with what is to be sent over the data connection."""
        self.is_sending = True
        super().push_dtp_data(*args, **kwargs)

    def close_data_connections(self) -> None:
        """Close the data connection, and give up one that is being made."""
        self._shutdown_connecting_dtp()
        self.drop_data_channel()

    def drop_data_channel(self) -> None:
        """Close the data connection, if there is one."""
        if self.data_channel is not None:
            self.data_channel.close()

    def take_rest(self) -> None:
        """Have written what has come over the data connection already, before that is closed."""
        if self.data_channel is not None:
            self.data_channel.take_rest()

    def stop_sending(self, words: Reply) -> None:
        """What was to be sent won't be; its data connection is closed already, or never came."""
        if self._out_dtp_queue is not None:
            file = self._out_dtp_queue[2]
            if file is not None:
                file.close()
        self._out_dtp_queue, self.is_sending = None, False
        self.say(words)
        self.proceed_soon()

    # -- TLS -----------------------------------------------------------------------------------------------

    def speak_tls(self, context: ssl.SSLContext, then: Callable[[], None]) -> None:
        """Begin with TLS, and call `then` after the handshake. Data connections will use the same context."""
        self.tls_context = context
        self.protect(context, self.timeout, then, with_tickets=True)

    def on_tls_failed(self, error: OSError) -> None:
        """Called when there was no handshake: there is nobody left to speak to."""
        self.tell("no TLS", "no TLS: %s", reason(error))
        self.close()
