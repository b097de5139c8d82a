"""One job on its way to a server: from the file to the id, whatever cuts the connection in between.

The server keeps what has come, but for its last byte, and tells its size: that is where the next try goes on. Of an
upload that had an end but no reply, the server knows whether it has become a job.
"""

import ftplib
import hashlib
import socket
import ssl
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import IO

import msgspec

from construir_ftp.client import remote_files, status
from construir_ftp.client.connection import LOST, Patience, Remote, code, said
from construir_ftp.errors import AnswerError, MissingError, RefusedError, UsageError
from construir_ftp.jobs import names
from construir_ftp.jobs.reply import is_to_be_continued, read_accepted

_PIECE_BYTES = 256 * 1024
# A large image is judged while it comes, but the last of it only then; the server has a deadline of its own.
_VERDICT_S = 15 * 60.0
# Of the results there are, those that a job can be among that was sent a moment ago.
_MOST_RECENT = 20
# Not now, and not in a moment either: no room, or a fault of the server's.
_PUT_OFF = (451, 452)

Progress = Callable[[int], None]


class JobFile(msgspec.Struct, frozen=True):
    """A file to be sent, and the name it gets there."""

    path: Path
    name: str
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path, name: str) -> "JobFile":
        """Read the file once. Raises RefusedError for a name that no job may have, UsageError for no file."""
        names.check_name(name)
        if names.is_temporary(name):
            raise RefusedError(f"a file called {name} would start nothing; rename it", 553)
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                return cls(path, name, file.tell(), sha256)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from error

    def open(self) -> IO[bytes]:
        """The file, to be read again. Raises UsageError, since an OSError would be taken for the connection's."""
        try:
            return self.path.open("rb")
        except OSError as error:
            raise UsageError(f"{self.path}: {error.strerror}") from error


class Receipt(msgspec.Struct, frozen=True):
    """What the server has accepted the job as, and where it stands in the queue, in words."""

    id: str
    place: str


class Submission:
    """The sending of one job_file. `progress` is told how many bytes are there."""

    def __init__(self, server: Remote, job_file: JobFile, patience: Patience, progress: Progress) -> None:
        self._server, self._job_file, self._patience, self._progress = server, job_file, patience, progress
        self._furthest = 0
        self._path = f"/queue/{job_file.name}"
        # The job of mine that had this name before, so that it isn't taken for this one.
        self._older: str | None = None
        self._begun: datetime | None = None
        self._is_all_sent = False

    def send(self, *, was_begun: bool) -> Receipt:
        """Send it until there is a reply; `was_begun` if what is kept under its name is a part of it.

        Raises RefusedError (65; 75 where it may be taken later), TryLaterError, LoginError, UnreachableError.
        """
        may_continue = was_begun
        while True:
            try:
                with self._server.session() as ftp:
                    self._patience.begin()
                    return self._go_on(ftp, may_continue=may_continue)
            except ftplib.error_perm as refused:
                if not self._is_all_sent and is_to_be_continued(str(refused)):
                    # Something on the way closed the data connection in good order, and so it ended early.
                    self._patience.wait(refused, self._server.address)
                    may_continue = True
                elif code(refused) == 554 and may_continue:
                    may_continue = False  # nothing is kept, or not so much
                else:
                    raise RefusedError(f"{said(refused)}", code(refused) or 550) from refused
            except ftplib.error_temp as refused:
                if code(refused) in _PUT_OFF:
                    raise RefusedError(said(refused), code(refused)) from refused
                self._patience.wait(refused, self._server.address)
                may_continue = True
            except LOST as lost:
                self._patience.wait(lost, self._server.address)
                may_continue = True

    def _go_on(self, ftp: ftplib.FTP, *, may_continue: bool) -> Receipt:
        """Send the rest of it, or all, and return what the server says to that."""
        if self._older is None:
            self._older, self._begun = _mine(ftp, self._job_file.name), status.overview(ftp).time
        if self._is_all_sent and (receipt := self._accepted(ftp)):
            return receipt
        kept_bytes = (remote_files.size(ftp, self._path) or 0) if may_continue else 0
        # A part that is kept lacks a byte at least. What lacks none is another job.
        return _understood(self._store(ftp, kept_bytes if kept_bytes < self._job_file.size_bytes else 0))

    def _accepted(self, ftp: ftplib.FTP) -> Receipt | None:
        """What has become of an upload whose reply was lost, if it is a job: one that waits or runs, or is done."""
        found = _mine(ftp, self._job_file.name)
        if found and found != self._older:
            return Receipt(found, "its reply was lost on the way")
        for job_id in sorted(filter(status.is_name, remote_files.names(ftp, "/done")), reverse=True)[:_MOST_RECENT]:
            try:
                ended = status.result(ftp, job_id)
            except MissingError:
                continue  # pruned just now
            is_new = ended.received and self._begun and ended.received >= self._begun
            if is_new and ended.upload_sha256 == self._job_file.sha256:
                return Receipt(job_id, "and done already")
        return None

    def _store(self, ftp: ftplib.FTP, offset: int) -> str:
        """STOR from `offset` on; the reply. Raises ftplib.error_perm and error_temp, and what LOST names."""
        self._is_all_sent = False
        with self._job_file.open() as file:
            file.seek(offset)
            self._progress(offset)
            with ftp.transfercmd(f"STOR {self._path}", offset or None) as data:
                try:
                    self._pour(file, data)
                    if isinstance(data, ssl.SSLSocket):
                        data.unwrap()
                except OSError:
                    # The server closes the data connection on what it refuses, or cuts, and says why on the other.
                    data.close()
                    return _last_words(ftp)
        return _last_words(ftp)

    def _pour(self, file: IO[bytes], data: socket.socket) -> None:
        while piece := file.read(_PIECE_BYTES):
            data.sendall(piece)
            self._progress(file.tell())
            if file.tell() > self._furthest:
                self._furthest = file.tell()
                self._patience.succeed()
        self._is_all_sent = True


def _mine(ftp: ftplib.FTP, name: str) -> str:
    """The id of the waiting or running job of the session's contributor that was sent by this name; "" for none."""
    found = status.look(ftp, name)
    return found.id if found else ""


def _last_words(ftp: ftplib.FTP) -> str:
    assert ftp.sock is not None
    ftp.sock.settimeout(_VERDICT_S)
    return ftp.voidresp()


def _understood(reply: str) -> Receipt:
    accepted = read_accepted(reply)
    if accepted is None or not status.is_name(accepted.job_id):
        raise AnswerError(f"the upload is answered with {said(reply)!r}; is that a server of Construir's?")
    return Receipt(accepted.job_id, accepted.place)


def cancel(ftp: ftplib.FTP, job_id: str) -> str:
    """Have a job of the session's contributor cancelled; the server's words. Raises MissingError, AnswerError."""
    try:
        return said(ftp.sendcmd(f"DELE /queue/{job_id}"))
    except ftplib.error_perm as refused:
        raise MissingError(f"{job_id} is not cancelled: {said(refused)}") from refused
