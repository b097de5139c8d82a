"""The data connections of an FTP session, where pyftpdlib's are too trusting.

pyftpdlib takes a connection that was cut by RST for a complete upload, says 226 before anyone has looked at it,
sends replies that nobody asked for, and takes any port once the configured ones are used up. Not here. All that
is decided about an upload, upload and session decide.
"""

import errno
import logging
import socket
from typing import Any

import pyftpdlib.ioloop  # noqa: F401 - comes first: it imports asyncore and silences its warning of deprecation
from pyftpdlib.handlers import DTPHandler
from pyftpdlib.handlers.ftp.dispatchers import ActiveDTP, PassiveDTP

from construir_ftp.errors import RefusedError
from construir_ftp.server.listing import ListingError, Reader
from construir_ftp.server.upload import OUR_FAULT, refusal

log = logging.getLogger("construir.ftp")


class DataChannel(DTPHandler):  # type: ignore[misc] # pyftpdlib is untyped
    """An open data connection. What is received goes to the session's upload, whatever ends it is its end."""

    # Measured: a buffer of 1 MiB nearly doubles the throughput of the default, 64 KiB.
    ac_in_buffer_size = 1 << 20

    _lastdata: int

    def __init__(self, sock: socket.socket, session: Any) -> None:
        self.timeout = session.timeout
        super().__init__(sock, session)

    def handle_read(self) -> None:
        """Called when there is something to read, or the other end is closed."""
        try:
            chunk = self.socket.recv(self.ac_in_buffer_size)
        except BlockingIOError:
            return
        except OSError:
            self._break_off("426 Data connection cut; nothing was kept.")
            return
        if not chunk:
            self.handle_close()
            return
        self.tot_bytes_received += len(chunk)
        try:
            self.cmd_channel.upload.write(chunk)
        except RefusedError as refused:
            self._break_off(refusal(refused))

    # asyncore calls this name, and the base class has bound its own method to it.
    handle_read_event = handle_read

    def initiate_send(self) -> None:
        """Called when more can be sent. While there is nothing to send yet, the loop isn't asked to call again."""
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

    def handle_close(self) -> None:
        """Called when the other end is closed: properly, unless there is a pending error (SO_ERROR, socket(7))."""
        if not self.receive:
            super().handle_close()
        elif self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._break_off("426 Data connection cut; nothing was kept.")
        else:
            self.transfer_finished = True
            self.close()

    def handle_timeout(self) -> None:
        """Called every `timeout` seconds to find out whether the transfer stands still."""
        if not self.receive:
            super().handle_timeout()
        elif self.tot_bytes_received > self._lastdata:
            self._lastdata = self.tot_bytes_received
        else:
            self._break_off(f"426 Nothing received for {self.timeout:g} s; nothing was kept.")

    def handle_error(self) -> None:
        """Called in the handler of an exception that nobody else took."""
        if not self.receive:
            super().handle_error()
            return
        log.exception("incoming %s: could not be received", self.cmd_channel.upload.job.id)
        self._break_off(OUR_FAULT)

    def _break_off(self, reply: str) -> None:
        self.cmd_channel.upload.refuse(reply)
        self.close()


class PassiveListener(PassiveDTP):  # type: ignore[misc] # pyftpdlib is untyped
    """Waits for the client to open the data connection (PASV, EPSV)."""

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
        """Called with a connection; one from another address is dropped, and the session told nothing."""
        if addr[0] != self.cmd_channel.remote_ip:
            log.warning("%s: dropped a data connection from %s", self.cmd_channel.who, addr[0])
            sock.close()
            return
        super().handle_accepted(sock, addr)

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
