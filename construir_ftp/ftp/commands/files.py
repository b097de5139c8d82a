"""The commands that rename, delete and tidy: RNFR and RNTO, DELE, MKD, RMD, and those of sizes, times and modes.

None of them changes a job. A file under a temporary name becomes one when it is renamed, and the reply is the verdict
on it; deleting a job asks the runner for its end; the others are answered as clients need it, and do nothing.
"""

import logging
import re
import select
import time
from pathlib import PurePosixPath
from typing import Any

from construir_ftp.errors import RefusedError
from construir_ftp.ftp.commands.site import AnsweringConnection
from construir_ftp.ftp.vfs.queue_dir import Queue
from construir_ftp.intake.incoming import Partial
from construir_ftp.intake.upload import Intake, Outcome, refusal
from construir_ftp.jobs import names

log = logging.getLogger("construir.ftp")


def _entry(syntax: str) -> dict[str, Any]:
    return {"perm": None, "auth": True, "arg": True, "help": f"Syntax: {syntax}."}


# MDTM as some clients send it that were not offered MFMT: the time to be set, and the name, which holds no space.
_SETS_TIME = re.compile(r"[0-9]{14} \S+")

# As pyftpdlib's table of commands has them. MFMT is obeyed and not in it: FEAT would tell clients to use it.
COMMANDS = {
    "DELE": _entry("DELE <SP> file-name (delete an upload, cancel a job)"),
    "MDTM": _entry("MDTM <SP> file-name (when it was last changed)"),
    "RNFR": _entry("RNFR <SP> file-name (rename what has a temporary name)"),
    "RNTO": _entry("RNTO <SP> file-name (and so make it a job)"),
    **{name: _entry(f"{name} <SP> path (another name for /queue)") for name in ("MKD", "XMKD")},
    **{name: _entry(f"{name} <SP> path (remove what MKD made)") for name in ("RMD", "XRMD")},
    "SITE CHMOD": _entry("SITE CHMOD <SP> mode path (noop)"),
    "SITE UTIME": _entry("SITE UTIME <SP> time path (noop)"),
}


class FilingConnection(AnsweringConnection):
    """A control connection with a /queue, if it is a contributor's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.queue: Queue | None = None
        self._from = ""
        super().__init__(*args, **kwargs)

    @property
    def intake(self) -> Intake:
        """Where uploads go."""
        intake: Intake = self.server.intake
        return intake

    def is_wanted(self) -> bool:
        """Whether there is still somebody to read a reply. Called in the background, while the session is held."""
        if self._closed or self.server.is_stopping:
            return False
        poller = select.poll()
        # What was sent before the end of the connection would hide it from a read. poll(2): POLLRDHUP.
        poller.register(self.socket.fileno(), select.POLLRDHUP)
        return not poller.poll(0)

    def job_id(self, name: str) -> str:
        """The id of the contributor's waiting or running job that was sent as `name`, if that is one; else `name`."""
        return (self.queue.job(name) if self.queue else None) or name

    # -- renaming --------------------------------------------------------------------------------------------

    def ftp_RNFR(self, line: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Name what is to be renamed: what has a temporary name, or what this session has sent."""
        path, self._from = self.fs.ftp2fs(line), ""
        name = self.queue.name(path) if self.queue else None
        partial = self._partial(name)
        if partial is not None and not partial.is_whole:
            self.respond(f"550 {name} was cut; send the rest of it first.")
        elif self.queue and name and (partial or name in dict(self.queue.sent())):
            self._from = name
            self.respond("350 Now its new name, with RNTO.")
        else:
            self.respond("550 Only what has a temporary name can be renamed.")

    def ftp_RNTO(self, line: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Rename it. A proper name makes it a job, if it is one: the reply is the verdict."""
        old_name, self._from = self._from, ""
        name = self.queue.name(self.fs.ftp2fs(line)) if self.queue else None
        partial = self._partial(old_name)
        if not old_name or self.queue is None:
            self.respond("503 Send RNFR first.")
        elif name is None:
            self.respond("553 Refused: jobs go into /queue")
        elif partial is None:
            self._rename_sent(self.queue, old_name, name)
        elif partial.is_busy:
            self.respond(f"450 {old_name} is being sent again at the moment.")
        else:
            self._rename(self.queue, partial, name)

    def _partial(self, name: str | None) -> Partial | None:
        return self.intake.partials.find(self.contributor, name) if self.contributor and name else None

    def _rename_sent(self, queue: Queue, old_name: str, name: str) -> None:
        # It had a name that somebody takes for temporary, and we don't. It is a job already, whatever it is called.
        job_id = queue.rename_sent(old_name, name)
        self.respond(f"250 Accepted as job {job_id} already." if job_id else f"550 {old_name} is not there any more.")

    def _rename(self, queue: Queue, partial: Partial, name: str) -> None:
        try:
            names.check_upload_name(name)
        except RefusedError as refused:
            self.respond(refusal(refused))
            return
        if not self.intake.partials.take(partial):
            self.respond(f"550 {partial.name} is not there any more.")
        elif names.is_temporary(name):
            self.answer_later(self.server.background.quick, lambda: self._rename_partial(partial, name))
        else:
            self.answer_later(self.server.background.check, lambda: self._make_job(queue, partial, name))

    def _rename_partial(self, partial: Partial, name: str) -> str:
        self.intake.partials.rename(partial, name)
        return f"250 Kept as {name}; it becomes a job when it is renamed."

    def _make_job(self, queue: Queue, partial: Partial, name: str) -> str:
        size_bytes = partial.status().st_size
        outcome = self.intake.admit(partial, name, self.is_wanted)
        self.note_outcome(queue, name, size_bytes, outcome)
        cut = self._partial(name)
        if outcome.job_id and cut is not None and self.intake.partials.take(cut):
            # An earlier try under the proper name, which this one makes good.
            self.intake.partials.delete(cut)
        # RFC 959, 5.4: 250 is RNTO's success.
        return outcome.reply.replace("226", "250", 1) if outcome.job_id else outcome.reply

    def note_outcome(self, queue: Queue, name: str, size_bytes: int, outcome: Outcome) -> None:
        """Remember and log what became of what was sent as `name`."""
        log.info("%s: %a, %d bytes: %s", self.who, name, size_bytes, outcome.reply.partition("\r\n")[0])
        queue.failed.discard(name)
        if outcome.job_id:
            queue.note_sent(name, outcome.job_id, size_bytes, time.time())
        elif not outcome.reply.startswith("226"):
            queue.failed.add(name)

    # -- deleting --------------------------------------------------------------------------------------------

    def ftp_DELE(self, line: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Delete what is kept of an upload, or cancel a job that waits or runs: only one's own."""
        path = self.fs.ftp2fs(line)
        name = self.queue.name(path) if self.queue else None
        partial = self._partial(name)
        if self.queue is None:
            self.respond("550 Nothing can be deleted here.")
        elif partial is not None and partial.is_busy:
            self.respond(f"450 {name} is being received at the moment.")
        elif partial is not None and self.intake.partials.take(partial):
            self.queue.failed.discard(partial.name)
            self.answer_later(self.server.background.quick, lambda: self._delete(partial))
        elif name in self.queue.failed:
            # Clients that delete what they could not send must not hit an older job of the same name.
            self.queue.failed.discard(name)
            self.respond(f"250 Nothing was kept of {name}.")
        else:
            self._cancel(self.queue, name or _running_id(path))

    def _delete(self, partial: Partial) -> str:
        self.intake.partials.delete(partial)
        return f"250 Deleted: {partial.name} was not complete yet."

    def _cancel(self, queue: Queue, name: str) -> None:
        job_id = queue.job(name)
        if job_id is None:
            self.respond("550 No job of yours waits or runs by that name.")
        else:
            self.answer_later(self.server.background.quick, lambda: self._cancel_job(queue, job_id))

    def _cancel_job(self, queue: Queue, job_id: str) -> str:
        try:
            self.intake.spool.cancel(job_id)
        except FileNotFoundError:
            queue.note_gone(job_id)
            return f"550 Job {job_id} has ended already; see /done/{job_id}/"
        queue.note_gone(job_id)
        log.info("%s: job %s: cancelled", self.who, job_id)
        return f"250 Job {job_id} is cancelled; its result will be in /done/{job_id}/"

    # -- what does nothing -------------------------------------------------------------------------------------

    def ftp_MKD(self, line: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Make another name for /queue: clients that send a directory make it first."""
        path = self.fs.ftp2fs(line)
        if self.queue and self.queue.make(path):
            quoted = path.replace('"', '""')
            self.respond(f'257 "{quoted}" is another name for /queue.')
        else:
            self.respond("550 No directory can be made there; jobs go into /queue.")

    def ftp_RMD(self, line: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Remove what MKD made; of a running job, cancel it, since clients know it as a directory."""
        path = self.fs.ftp2fs(line)
        if self.queue and self.queue.unmake(path):
            self.respond("250 Removed.")
        elif self.queue and _running_id(path):
            self._cancel(self.queue, _running_id(path))
        else:
            self.respond("550 Nothing can be removed there.")

    def ftp_MFMT(self, line: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Leave the time as it is: that of its arrival."""
        when, _, name = line.partition(" ")
        self._leave_alone(name, f"213 Modify={when}; {name}")

    def ftp_SIZE(self, path: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Say how large a file is. In /queue nothing is sent in ASCII mode, so its size there needs no other one first.

        Python's ftplib and tnftp begin in ASCII mode (RFC 3659, 4: the size depends on it), and continue uploads.
        """
        if self.queue and self.queue.name(path) and self.fs.isfile(path):
            self.respond(f"213 {self.fs.getsize(path)}")
        else:
            super().ftp_SIZE(path)

    def ftp_MDTM(self, line: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Say when a file was last changed. With a time in front, as WinSCP and ncftpput send it, it means MFMT."""
        if _SETS_TIME.fullmatch(line):
            self.ftp_MFMT(line)
        else:
            super().ftp_MDTM(self.fs.ftp2fs(line))

    def ftp_SITE_CHMOD(self, line: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Leave the mode as it is."""
        self._leave_alone(line.partition(" ")[2], "200 Modes mean nothing here.")

    def ftp_SITE_UTIME(self, line: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Leave the time as it is. In one form of it the name comes first, in the other last."""
        words = line.split(" ")
        is_first = len(words) == 5 and words[-1].upper() == "UTC"
        self._leave_alone(words[0] if is_first else words[-1], "200 Times mean nothing here.")

    def _leave_alone(self, name: str, reply: str) -> None:
        path = self.fs.ftp2fs(name)
        if name and self.queue and (self.queue.is_place(path) or self.queue.find(path) is not None):
            self.respond(reply)
        else:
            self.respond("550 It can't be changed.")


def _running_id(path: str) -> str:
    """The id in /running/<id>; empty if `path` is another."""
    parts = PurePosixPath(path).parts
    return parts[2] if len(parts) == 3 and parts[1] == "running" else ""
