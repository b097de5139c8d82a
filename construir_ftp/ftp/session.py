"""One FTP session: the commands, in order, and their replies (RFC 959, 3659).

pyftpdlib speaks the protocol. What the commands do where pyftpdlib's own don't do, is in the modules that Session is
built on: control, protection, login, browsing, site, filing, receiving. Here are the data connections, and the end of
whatever goes over them. Nothing here blocks.
"""

import logging
import socket
from typing import Any

from pyftpdlib.handlers import FTPHandler

from construir_ftp.ftp import ftps
from construir_ftp.ftp.commands import files, site, store
from construir_ftp.ftp.commands.store import ReceivingConnection
from construir_ftp.ftp.data import ActiveConnector, DataChannel, PassiveListener
from construir_ftp.ftp.vfs.queue_dir import Queue
from construir_ftp.ftp.vfs.view import Permissions, View

log = logging.getLogger("construir.ftp")

FACTS = ("type", "size", "modify")
_STOU = "502 A job has the name it is sent under; use STOR."
_OVER_DATA_CONNECTION = ("STOR", "APPE", "RETR", "LIST", "NLST", "MLSD")
_ABORTED = "426 Transfer aborted.\r\n226 Abort done."


def _offered() -> dict[str, dict[str, Any]]:
    """pyftpdlib's table of commands, with our own words for those that are obeyed here."""
    table = {name: how for name, how in FTPHandler.proto_cmds.items() if name not in ("STOU", "MFMT")}
    return {**table, **ftps.COMMANDS, **site.COMMANDS, **files.COMMANDS, **store.COMMANDS}


class Session(ReceivingConnection):
    """A control connection, of a contributor or of anyone. `server` is the Listener that accepted it."""

    banner = "Construir ready."
    authorizer = Permissions()
    dtp_handler = DataChannel
    passive_dtp = PassiveListener
    active_dtp = ActiveConnector
    proto_cmds = _offered()

    def __init__(self, conn: socket.socket, server: Any, ioloop: Any = None) -> None:
        self.timeout = float(server.ftp.idle_timeout)
        self.passive_ports = server.passive_ports
        self.masquerade_address = server.ftp.masquerade_address or None
        super().__init__(conn, server, ioloop)
        # What MLSD may tell of a file; the host's owners, modes and inode numbers are left out.
        self._current_facts = list(FACTS)
        self._available_facts = list(FACTS)

    def handle(self) -> None:
        """Called when the connection is accepted and within the limits."""
        self.server.sessions.add(self)
        super().handle()

    def close(self) -> None:
        """Close the control connection, and with it whatever is being transferred."""
        if self._closed:
            return
        super().close()
        self.server.sessions.discard(self)
        self.drain(None)
        if self.upload is not None:
            self.conclude(self.upload)

    # -- commands --------------------------------------------------------------------------------------

    def pre_process_command(self, line: str, cmd: str, arg: str) -> None:
        """Called with each command. What is not offered, or has no data connection to go over, ends here."""
        if cmd == "STOU":
            self.respond(_STOU)
        elif cmd == "MFMT" and self.authenticated:
            self.ftp_MFMT(arg)
        elif cmd == "MFMT":
            self.respond("530 Log in with USER and PASS first.")
        elif cmd in _OVER_DATA_CONNECTION and self.authenticated and not self.has_data_connection():
            self.respond("425 Use PASV or PORT first.")
        else:
            super().pre_process_command(line, cmd, arg)

    def on_welcome(self) -> None:
        """Called when somebody is let in: what they see depends on who they are."""
        intake = self.server.intake
        self.queue = Queue(intake.spool, intake.partials, self.contributor) if self.contributor else None
        self.fs = View(intake.spool, self.queue, self.server.notices, self)

    # -- data connections ------------------------------------------------------------------------------

    def on_no_data_connection(self) -> None:
        """Called when the client did not open the data connection in time."""
        if self.is_sending or self.upload is not None:
            self.break_off("425 No data connection was opened.")

    def ftp_ABOR(self, line: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Break off the transfer under way."""
        if self.is_sending or self.upload is not None:
            self.break_off(_ABORTED)
            return
        if self.is_connecting():
            # The reply that PORT or EPRT is still waiting for; pyftpdlib forgets it.
            self.respond("425 Not connected: aborted.")
        super().ftp_ABOR(line)

    def break_off(self, reply: str) -> None:
        """End the transfer under way, whether its data connection is open already or not."""
        self._shutdown_connecting_dtp()
        if self.upload is not None:
            self.upload.cut(reply)
            self.drop_data_channel()
            if self.upload is not None:
                self.conclude(self.upload)
        else:
            self.drop_data_channel()
            self.stop_sending(reply)

    def _on_dtp_connection(self) -> None:
        # The connector's socket is the data channel's now. Were it closed later, as pyftpdlib does, the loop would
        # forget whoever has the same file descriptor by then.
        self._dtp_connector = None
        if self.data_channel is not None and not self.data_channel._closed:
            super()._on_dtp_connection()
        self.proceed_soon()

    def _on_dtp_close(self) -> None:
        if self.upload is not None:
            self.data_channel = None
            self.conclude(self.upload)
        elif self._out_dtp_queue is not None and not self._closed:
            # It was cut before anything could be sent over it.
            self.data_channel = None
            self.stop_sending("426 Data connection cut.")
        else:
            self.is_sending = False
            super()._on_dtp_close()
            if self.is_held:
                # pyftpdlib has begun to wait for the next command; `resume` will.
                self._idler.cancel()
            self.proceed_soon()

    def log_transfer(
        self,
        cmd: str,
        filename: str,
        receive: bool,
        completed: bool,
        elapsed: float,
        bytes: int,  # noqa: A002
    ) -> None:
        """Called at the end of every transfer, of a listing too."""
        if not receive and cmd in ("RETR", None):
            log.info("%s: fetched %a, %d bytes%s", self.who, filename, bytes, "" if completed else ", cut short")
