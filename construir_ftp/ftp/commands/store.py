"""The commands that send a job: STOR and APPE, with REST and ALLO in front. The reply is the verdict on the upload.

An upload whose connections were cut is none, and what has come of it is kept, to be continued at its end and nowhere
else: REST says where that is, or the client has asked for its SIZE before APPE.
"""

import logging
import re
from typing import Any

from construir_ftp.errors import RefusedError
from construir_ftp.ftp.commands.files import FilingConnection
from construir_ftp.ftp.lingering_close import Drain
from construir_ftp.intake.incoming import Partial
from construir_ftp.intake.upload import OUR_FAULT, Outcome, Upload, refusal

log = logging.getLogger("construir.ftp")

# As pyftpdlib's table of commands has them; their paths are looked at here.
COMMANDS: dict[str, dict[str, Any]] = {
    "STOR": {"perm": None, "auth": True, "arg": True, "help": "Syntax: STOR <SP> file-name (send a job)."},
    "ALLO": {
        "perm": None,
        "auth": True,
        "arg": True,
        "help": "Syntax: ALLO <SP> bytes (how large the next upload is).",
    },
    "APPE": {"perm": None, "auth": True, "arg": True, "help": "Syntax: APPE <SP> file-name (continue an upload)."},
}

# RFC 959, 4.1.3: bytes, and perhaps the largest record, which a file has none of.
_ANNOUNCEMENT = re.compile(r"([0-9]{1,18})( R [0-9]+)?", re.ASCII)
_CUT_SHORT = "426 Transfer aborted."
_TAKEN_OVER = "426 Another session of yours sends it."


class ReceivingConnection(FilingConnection):
    """A control connection that has at most one upload at a time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.upload: Upload | None = None
        self._announced_bytes = 0
        self._is_received = False
        self._drain: Drain | None = None
        super().__init__(*args, **kwargs)

    def is_busy(self) -> bool:
        """Whether a command has not come to its end yet."""
        return self.upload is not None or super().is_busy()

    def ftp_ALLO(self, line: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Hear how large the next upload is to be: what is too much is refused before a byte of it is sent."""
        if announced := _ANNOUNCEMENT.fullmatch(line):
            self._announced_bytes = int(announced[1])
            self.respond("200 Now send it.")
        else:
            self.respond("501 Send ALLO with a number of bytes.")

    def ftp_STOR(self, path: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Begin an upload, or continue one where REST says; or refuse it before a byte is received."""
        offset, self._restart_position = self._restart_position, 0
        self._begin(path, offset)

    def ftp_APPE(self, path: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Continue an upload at its end, or begin one (RFC 959, 4.1.3)."""
        self._restart_position = 0
        self._begin(path, None)

    def _begin(self, path: str, offset: int | None) -> None:
        announced_bytes, self._announced_bytes = self._announced_bytes, 0
        try:
            self.upload = self._open(self._name(path), offset, announced_bytes)
        except RefusedError as refused:
            log.info("%s: %a: %s", self.who, path, refusal(refused))
            self.respond(refusal(refused))
        except OSError:
            log.exception("%s: %a: can't be received", self.who, path)
            self.respond(OUR_FAULT)
        else:
            self._receive(self.upload)

    def _name(self, path: str) -> str:
        """The last part of `path`, if an upload may begin. Raises RefusedError."""
        if self.contributor is None or self.queue is None:
            raise RefusedError("only contributors send jobs; log in as one", 550)
        if self._current_type != "i":
            raise RefusedError("a job is binary; send TYPE I first", 550)
        # Not by way of the whole path: that would lose a last part such as "..".
        directory, slash, name = path.rpartition("/")
        if not self.queue.is_place(self.fs.ftp2fs(directory or slash or ".")):
            raise RefusedError("jobs go into /queue", 553)
        return name

    def _open(self, name: str, offset: int | None, announced_bytes: int) -> Upload:
        """The upload to be written to; `offset` in bytes, None for wherever it ends. Raises RefusedError, OSError.

        What was announced of one that goes on may be its rest or all of it, and is not counted.
        """
        assert self.contributor is not None
        assert self.queue is not None
        partial = self.intake.partials.find(self.contributor, name)
        if partial is None and offset is None and name in self.queue.told:
            raise RefusedError(f"{name} is complete already, or gone; send it whole, with STOR")
        if offset == 0 or (partial is None and offset is None):
            return self.intake.begin(name, self.contributor, announced_bytes)
        if partial is None:
            raise RefusedError(f"nothing is kept of {name}; send it whole, without REST", 554)
        self._check_end(partial, self.queue.told.get(name) if offset is None else offset)
        return self.intake.resume(partial)

    def _check_end(self, partial: Partial, offset: int | None) -> None:
        """Refuse (RefusedError) to go on at another place than where it ends, or while another session writes it."""
        if partial.is_busy:
            self._end_elsewhere(partial)
            raise RefusedError("another session of yours was sending it; ask for its SIZE and continue", 450)
        try:
            size_bytes = partial.status().st_size
        except FileNotFoundError:
            raise RefusedError(f"nothing is kept of {partial.name} any more; send it whole", 554) from None
        if offset is not None and offset != size_bytes:
            raise RefusedError(f"{size_bytes} bytes of {partial.name} are kept: continue there, or send it whole", 554)

    def _end_elsewhere(self, partial: Partial) -> None:
        # Most likely its connection is dead, and only this server doesn't know yet.
        for session in list(self.server.sessions):
            if session.upload is not None and session.upload.partial is partial:
                session.break_off(_TAKEN_OVER)

    def _receive(self, upload: Upload) -> None:
        log.info("%s: sends %a as incoming %s, from byte %d", self.who, upload.name, upload.job.id, upload.size_bytes)
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

    def conclude(self, upload: Upload) -> None:
        """The upload has come to its end, whatever it was; the reply comes from the background."""
        self.upload, self._in_dtp_queue = None, None
        if not self._is_received:
            upload.cut(_CUT_SHORT)
        self.hold()
        sent = dict(self.queue.sent()) if self.queue else {}
        run = self.server.background.check if self._is_received else self.server.background.quick
        run(lambda: upload.conclude(self.is_wanted, sent), lambda outcome: self._concluded(upload, outcome))

    def _concluded(self, upload: Upload, outcome: Outcome) -> None:
        if self.queue:
            self.note_outcome(self.queue, upload.name, upload.size_bytes, outcome)
        self._answer(outcome.reply)

    def drain(self, drain: Drain | None) -> None:
        """Have what is left of a refused upload received; of no more than one at a time."""
        if self._drain is not None:
            self._drain.close()
        self._drain = drain
