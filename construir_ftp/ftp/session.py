"""One FTP session: who it is, what it is doing, and how each command and each transfer ends (RFC 959, 3659).

pyftpdlib speaks the protocol. What the commands do, where pyftpdlib's own don't do, functions in commands/ say: each
takes the session and the argument, and returns the reply, or None if that comes later. Nothing here blocks.
"""

import logging
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from construir_ftp.errors import RefusedError
from construir_ftp.ftp.control import ControlConnection
from construir_ftp.ftp.data import ActiveConnector, DataChannel, PassiveListener
from construir_ftp.ftp.ftps import Protection
from construir_ftp.ftp.lingering_close import Drain
from construir_ftp.ftp.login import Login, network
from construir_ftp.ftp.quiet_log import Fetches
from construir_ftp.ftp.vfs.queue_dir import Queue
from construir_ftp.ftp.vfs.view import Permissions, View
from construir_ftp.intake.upload import Conclusion, Intake, Upload
from construir_ftp.jobs import reply
from construir_ftp.jobs.reply import OUR_FAULT, Reply

log = logging.getLogger("construir.ftp")

# What a command does: takes the session and the argument, returns the reply, or None if that comes later.
Handler = Callable[["Session", str], Reply | None]

FACTS = ("type", "size", "modify")
_ASK_FIRST = Reply(425, "Use PASV or PORT first.")
_CUT = Reply(426, "Data connection cut.")
_CUT_SHORT = Reply(426, "Transfer aborted.")
_ABORTED = Reply(226, "Abort done.")


class Session(ControlConnection):
    """A control connection, of a contributor or of anyone. `server` is the Listener that accepted it.

    `upload` is what is being received, one at most. `queue` is /queue, of a contributor's session. `rename_from` is
    what RNFR has named, `announced_bytes` what ALLO has announced.
    """

    banner = "Construir ready."
    authorizer = Permissions()
    dtp_handler = DataChannel
    passive_dtp = PassiveListener
    active_dtp = ActiveConnector
    fs: View

    def __init__(self, conn: socket.socket, server: Any, ioloop: Any = None) -> None:
        self.timeout = float(server.ftp.idle_timeout)
        self.passive_ports = server.passive_ports
        self.masquerade_address = server.ftp.masquerade_address or None
        self.proto_cmds = server.commands.offered
        self.upload: Upload | None = None
        self.queue: Queue | None = None
        self.rename_from = ""
        self.announced_bytes = 0
        self.network = ""
        self._is_received = False
        self._drain: Drain | None = None
        self._is_aborted, self._no_data = False, _ASK_FIRST
        self.protection = Protection(self, server.tls, server.certificate)
        self.login = Login(self)
        self._fetches = Fetches(self)
        super().__init__(conn, server, ioloop)
        self.network = network(self.remote_ip) if self.remote_ip else ""
        self._extra_feats = self.protection.features()
        # What MLSD may tell of a file; the host's owners, modes and inode numbers are left out.
        self._current_facts = list(FACTS)
        self._available_facts = list(FACTS)
        self.login.wait()

    @property
    def contributor(self) -> str | None:
        """Who has logged in; None is anyone, or nobody yet."""
        return self.login.contributor

    @property
    def who(self) -> str:
        """How the log calls this session."""
        return f"{self.contributor or 'anonymous'}@{self.remote_ip}"

    @property
    def intake(self) -> Intake:
        """Where uploads go."""
        intake: Intake = self.server.intake
        return intake

    def handle(self) -> None:
        """Called when the connection is accepted and within the limits."""
        self.server.sessions.add(self)
        self.protection.begin(self.socket.getsockname()[1] == self.server.implicit_port, super().handle)

    def close(self) -> None:
        """Close the control connection, and with it whatever is being transferred."""
        if self._closed:
            return
        self.take_rest()
        super().close()
        self.login.close()
        self.server.sessions.discard(self)
        self.drain(None)
        if self.upload is not None:
            self.conclude(self.upload)

    # -- commands ----------------------------------------------------------------------------------------------

    def is_busy(self) -> bool:
        """Whether a command has not come to its end yet."""
        return self.upload is not None or super().is_busy()

    def pre_process_command(self, line: str, cmd: str, arg: str) -> None:
        """Called with each command. What is not offered, or has no data connection to go over, ends here."""
        command = self.server.commands.find(cmd)
        if command is not None and command.is_hidden:
            self.logline(f"<- {line}")
            self._obey_hidden(command.handler, arg)
        elif command is not None and command.needs_data and self.authenticated and not self.has_data_connection():
            self.say(self._no_data)
        elif cmd == "SITE" and (words := self.server.commands.unknown_site(arg)):
            self.say(words)
        else:
            super().pre_process_command(line, cmd, arg)
        if command is not None and command.needs_data:
            # REST is for the next transfer only, whatever that is and however it ends (RFC 959, 4.1.3).
            self._restart_position = 0

    def _obey_hidden(self, handler: Handler, arg: str) -> None:
        if self.authenticated:
            self._obey_by(handler, arg)
        else:
            self.say(Reply(530, "Log in with USER and PASS first."))

    def process_command(self, cmd: str, *args: Any, **kwargs: Any) -> None:
        """Called with each command that may be obeyed: by a function of ours, if there is one."""
        command = self.server.commands.find(cmd)
        if command is None or command.handler is None:
            super().process_command(cmd, *args, **kwargs)
        elif not self._closed:
            self._obey_by(command.handler, args[0])

    def ftp_STAT(self, line: str) -> None:  # noqa: N802 - pyftpdlib calls it
        """Called by pyftpdlib for STAT without a path, past the table."""
        self.process_command("STAT", line)

    def _obey_by(self, handler: Handler, arg: str) -> None:
        words = handler(self, arg)
        if words is not None:
            self.say(words)

    def answer_later(self, run: Callable[..., None], work: Callable[[], Reply]) -> None:
        """Have `work` done in the background, and what it returns replied; no other command is obeyed meanwhile."""
        self.hold()
        run(lambda: self._at_any_rate(work), self._answer)

    def _at_any_rate(self, work: Callable[[], Reply]) -> Reply:
        try:
            return work()
        except RefusedError as refused:
            return reply.refused(refused)
        except Exception:
            log.exception("%s: a command could not be obeyed", self.who)
            return OUR_FAULT

    def _answer(self, words: Reply) -> None:
        self.resume()
        if not self._closed:
            self.say(words)

    def is_wanted(self) -> bool:
        """Whether there is still somebody to read a reply. Called in the background, while the session is held."""
        return not (self._closed or self.server.is_stopping or self.is_hung_up())

    # -- who it is ---------------------------------------------------------------------------------------------

    def welcome(self) -> None:
        """Somebody is let in: what they see depends on who they are."""
        intake = self.intake
        self.queue = Queue(intake.spool, intake.partials, self.contributor) if self.contributor else None
        self.fs = View(intake.spool, self.queue, self.server.notices, self)

    def flush_account(self) -> None:
        """Called by USER and REIN: nobody is logged in any longer."""
        super().flush_account()
        self.login.forget()

    # -- data connections --------------------------------------------------------------------------------------

    def _make_epasv(self, extmode: bool = False) -> None:
        if self._may_open_data_connection():
            super()._make_epasv(extmode)

    def _make_eport(self, ip: str, port: int) -> None:
        if self._may_open_data_connection():
            super()._make_eport(ip, port)

    def _may_open_data_connection(self) -> bool:
        refusal, self._no_data = self.protection.refuse_data_connection(self.username), _ASK_FIRST
        if refusal is not None:
            self.say(refusal)
        return refusal is None

    def on_no_data_connection(self, why: str = "") -> None:
        """Called when the client did not open the data connection in time; `why` is a sentence that explains it."""
        self._no_data = Reply(425, f"No data connection was opened. {why}".strip())
        if self.is_transferring():
            self.break_off(self._no_data)

    def is_transferring(self) -> bool:
        """Whether something is being sent or received, or about to be."""
        return self.is_sending or self.upload is not None

    def abort(self) -> None:
        """End the transfer under way, because the client has asked for it (RFC 959, 4.1.3: 426, then 226)."""
        self._is_aborted = True
        self.break_off(_CUT_SHORT)

    def break_off(self, words: Reply) -> None:
        """End the transfer under way, whether its data connection is open already or not."""
        self._shutdown_connecting_dtp()
        if self.upload is not None:
            self.take_rest()
            self.upload.cut(words)
            self.drop_data_channel()
            if self.upload is not None:
                self.conclude(self.upload)
        else:
            self.drop_data_channel()
            self.stop_sending(words)
            self._end_transfer()

    def _end_transfer(self) -> None:
        """What is said of an abort comes after the reply to the transfer."""
        aborted, self._is_aborted = self._is_aborted, False
        if aborted and not self._closed:
            self.say(_ABORTED)

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
            self.stop_sending(_CUT)
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
            self._fetches.note(filename, bytes, is_complete=completed)

    # -- uploads -----------------------------------------------------------------------------------------------

    def receive(self, upload: Upload) -> Reply:
        """Have what comes over the data connection written to an upload."""
        log.info("%s: sends %a as incoming %s, from byte %d", self.who, upload.name, upload.job.id, upload.size_bytes)
        self.upload, self._is_received = upload, False
        if self.data_channel is not None:
            self.data_channel.file_obj = upload.file
            self.data_channel.enable_receiving(self._current_type, "STOR")
            return Reply(125, "Send it.")
        self._in_dtp_queue = (upload.file, "STOR")
        return Reply(150, "Open the data connection and send it.")

    def on_file_received(self, file: object) -> None:
        """Called when the data connection was closed properly."""
        self._is_received = True

    def conclude(self, upload: Upload) -> None:
        """The upload has come to its end, whatever it was; the reply comes from the background."""
        self.upload, self._in_dtp_queue = None, None
        if not self._is_received:
            upload.cut(_CUT_SHORT)
        self.hold()
        sent = dict(self.queue.sent()) if self.queue else {}
        background, whose = self.server.background, upload.partial.contributor
        run = partial(background.check, whose) if self._is_received else background.quick
        end = partial(self._concluded, upload, time.monotonic())
        run(lambda: upload.conclude(self.is_wanted, sent), end)

    def _concluded(self, upload: Upload, begun_s: float, concluded: Conclusion) -> None:
        self.intake.tally.note_end(concluded.reply, time.monotonic() - begun_s, is_job=bool(concluded.job_id))
        if self.queue:
            self.queue.note_conclusion(self.who, upload.name, upload.size_bytes, concluded)
        self._answer(concluded.reply)
        self._end_transfer()

    def drain(self, drain: Drain | None) -> None:
        """Have what is left of a refused upload received; of no more than one at a time."""
        if self._drain is not None:
            self._drain.close()
        self._drain = drain
