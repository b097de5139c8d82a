"""One FTP session: the commands, in order, and their replies (RFC 959, 3659).

pyftpdlib speaks the protocol; this keeps its word where pyftpdlib doesn't: the reply to STOR is the verdict on the
upload, passwords are checked beside the event loop, and an upload whose connections were cut is no upload. Nothing
here blocks.
"""

import logging
import select
import socket
from typing import Any

from pyftpdlib.handlers import FTPHandler

from construir_ftp.errors import RefusedError
from construir_ftp.server.browsing import BrowsingConnection
from construir_ftp.server.data import ActiveConnector, DataChannel, PassiveListener
from construir_ftp.server.drain import Drain
from construir_ftp.server.protection import COMMANDS
from construir_ftp.server.upload import OUR_FAULT, Upload, refusal
from construir_ftp.server.view import Permissions, View

log = logging.getLogger("construir.ftp")

_NOT_OFFERED = {
    "APPE": "502 An upload can't be continued; send it whole, with STOR.",
    "STOU": "502 A job has the name it is sent under; use STOR.",
    "MFMT": "502 Times can't be set here.",
    "SITE": "502 There are no SITE commands here.",
    **dict.fromkeys(("MKD", "XMKD"), "550 No directories can be made here; jobs go into /queue."),
    **dict.fromkeys(("RMD", "XRMD", "DELE"), "550 Nothing can be deleted here."),
    **dict.fromkeys(("RNFR", "RNTO"), "550 Nothing can be renamed here."),
}
_OVER_DATA_CONNECTION = ("STOR", "RETR", "LIST", "NLST", "MLSD")
_CUT_SHORT = "426 Transfer aborted; nothing was kept."
_ABORTED = "426 Transfer aborted.\r\n226 Abort done."


def _offered() -> dict[str, dict[str, Any]]:
    """pyftpdlib's table of commands without those not offered; STOR looks at its path itself."""
    table = {name: how for name, how in FTPHandler.proto_cmds.items() if name.split()[0] not in _NOT_OFFERED}
    return {**table, **COMMANDS, "STOR": {**table["STOR"], "perm": None}}


class Session(BrowsingConnection):
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
        self.upload: Upload | None = None
        self._is_received = False
        self._drain: Drain | None = None
        super().__init__(conn, server, ioloop)
        # What MLSD may tell of a file; the host's owners, modes and inode numbers are left out.
        self._current_facts = ["type", "size", "modify"]
        self._available_facts = ["type", "size", "modify"]

    def is_busy(self) -> bool:
        """Whether a command has not come to its end yet."""
        return self.upload is not None or super().is_busy()

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
            self._conclude(self.upload)

    # -- commands --------------------------------------------------------------------------------------

    def pre_process_command(self, line: str, cmd: str, arg: str) -> None:
        """Called with each command. What is not offered, or has no data connection to go over, ends here."""
        if cmd in _NOT_OFFERED:
            self.respond(_NOT_OFFERED[cmd])
        elif cmd in _OVER_DATA_CONNECTION and self.authenticated and not self.has_data_connection():
            self.respond("425 Use PASV or PORT first.")
        else:
            super().pre_process_command(line, cmd, arg)

    def on_welcome(self) -> None:
        """Called when somebody is let in: what they see depends on who they are."""
        self.fs = View(self.server.intake.spool, self.contributor is not None, self)

    # -- uploads ---------------------------------------------------------------------------------------

    def ftp_STOR(self, path: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Begin an upload, or refuse it before a byte is received."""
        offset, self._restart_position = self._restart_position, 0
        try:
            name = self._job_name(path, offset)
            self.upload = self.server.intake.begin(name, self.contributor)
        except RefusedError as refused:
            log.info("%s: %a: %s", self.who, path, refused)
            self.respond(refusal(refused))
        except OSError:
            log.exception("%s: %a: can't be received", self.who, path)
            self.respond(OUR_FAULT)
        else:
            self._receive(self.upload)

    def _job_name(self, path: str, offset: int) -> str:
        """The last part of `path`, if an upload may begin. Raises RefusedError."""
        if self.contributor is None:
            raise RefusedError("only contributors send jobs; log in as one", 550)
        if offset:
            raise RefusedError("an upload can't be resumed; send it whole, without REST", 554)
        if self._current_type != "i":
            raise RefusedError("a job is binary; send TYPE I first", 550)
        directory, slash, name = path.rpartition("/")
        if self.fs.ftp2fs(directory or slash or ".") != "/queue":
            raise RefusedError("jobs go into /queue", 553)
        return name

    def _receive(self, upload: Upload) -> None:
        log.info("%s: sends %a as incoming %s", self.who, upload.name, upload.job.id)
        self._is_received = False
        if self.data_channel is not None:
            self.data_channel.file_obj = upload.file
            self.data_channel.enable_receiving(self._current_type, "STOR")
            self.respond("125 Send it.")
        else:
            self._in_dtp_queue = (upload.file, "STOR")
            self.respond("150 Open the data connection and send it.")

    def on_file_received(self, file: object) -> None:
        """Called when the data connection was closed properly."""
        self._is_received = True

    def _conclude(self, upload: Upload) -> None:
        """The upload has come to its end, whatever it was; the reply comes from the background."""
        self.upload, self._in_dtp_queue = None, None
        if not self._is_received:
            upload.refuse(_CUT_SHORT)
        self.hold()
        run = self.server.background.check if self._is_received else self.server.background.quick
        run(lambda: upload.conclude(self._is_wanted), lambda reply: self._concluded(upload, reply))

    def _is_wanted(self) -> bool:
        """Whether there is still somebody to read the verdict. Called in the background, while the session is held."""
        if self._closed or self.server.is_stopping:
            return False
        poller = select.poll()
        # What was sent before the end of the connection would hide it from a read. poll(2): POLLRDHUP.
        poller.register(self.socket.fileno(), select.POLLRDHUP)
        return not poller.poll(0)

    def _concluded(self, upload: Upload, reply: str) -> None:
        said = reply.partition("\r\n")[0]
        log.info("%s: %a, %d bytes, incoming %s: %s", self.who, upload.name, upload.size_bytes, upload.job.id, said)
        self.resume()
        if not self._closed:
            self.respond(reply)

    def drain(self, drain: Drain | None) -> None:
        """Have what is left of a refused upload received; of no more than one at a time."""
        if self._drain is not None:
            self._drain.close()
        self._drain = drain

    # -- data connections ------------------------------------------------------------------------------

    def on_no_data_connection(self) -> None:
        """Called when the client did not open the data connection in time."""
        if self.is_sending or self.upload is not None:
            self._break_off("425 No data connection was opened.")

    def ftp_ABOR(self, line: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Break off the transfer under way."""
        if self.is_sending or self.upload is not None:
            self._break_off(_ABORTED)
        else:
            super().ftp_ABOR(line)

    def _break_off(self, reply: str) -> None:
        """End the transfer under way, whether its data connection is open already or not."""
        self._shutdown_connecting_dtp()
        if self.upload is not None:
            self.upload.refuse(reply)
            self.drop_data_channel()
            if self.upload is not None:
                self._conclude(self.upload)
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
            self._conclude(self.upload)
        elif self._out_dtp_queue is not None and not self._closed:
            # It was cut before anything could be sent over it.
            self.data_channel = None
            self.stop_sending("426 Data connection cut.")
        else:
            self.is_sending = False
            super()._on_dtp_close()
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
