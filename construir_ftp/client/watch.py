"""A job followed to its end: its place in the queue, what it prints, how it ended; across as many sessions as it takes.

output.log only grows, so that REST brings what has come since. It begins anew where the server had to start the job
again, which `attempt` says.
"""

import ftplib
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import msgspec

from construir_ftp.client import remote_files, status
from construir_ftp.client.connection import LOST, Patience, Remote
from construir_ftp.client.status import Standing
from construir_ftp.errors import AnswerError
from construir_ftp.jobs.result import Result

_LOOK_EVERY_S = 0.5
_LOOK_SELDOM_S = 5.0
_SOON_S = 60.0
# By how much a log may grow while it is read.
_MOST_GROWTH_BYTES = 64 * 2**20


class Printed(msgspec.Struct, frozen=True):
    """What the job has printed since the last time."""

    data: bytes


class Restarted(msgspec.Struct, frozen=True):
    """The job had to be started again, by no fault of its own; what it prints comes from the beginning."""


Event = Standing | Printed | Restarted | Result


class Watch:
    """Of one job. Each event is told once, however often the connection was lost."""

    def __init__(self, server: Remote, job_id: str, look_every_s: float = _LOOK_EVERY_S) -> None:
        self._server, self._id, self._look_every_s = server, job_id, look_every_s
        self._offset = self._attempt = 0
        self._last: Standing | None = None
        self._last_change_s = time.monotonic()

    def events(self, patience: Patience) -> Iterator[Event]:
        """All that happens, until the Result that comes last.

        Raises MissingError where there is no such job, or no longer; UnreachableError once patience is lost.
        """
        while True:
            try:
                with self._server.session() as ftp:
                    patience.begin()
                    for event in self._follow(ftp, patience):
                        yield event
                        if isinstance(event, Result):
                            return
            except ftplib.error_perm as error:
                # A file that has just moved from running/ to done/.
                patience.wait(error, self._server.address)
            except LOST as lost:
                patience.wait(lost, self._server.address)

    def _follow(self, ftp: ftplib.FTP, patience: Patience) -> Iterator[Event]:
        while True:
            found = status.ask(ftp, self._id)
            yield from self._stands(found)
            if found.state == "done":
                ended = status.result(ftp, self._id)
                yield from self._begins_anew(ended.attempt)
                yield from self._output(ftp, f"/done/{self._id}/output.log")
                yield ended
                return
            if found.state == "running":
                yield from self._begins_anew(found.attempt)
                yield from self._output(ftp, f"/running/{self._id}/output.log")
            patience.succeed()
            time.sleep(self._pause_s())

    def _stands(self, found: Standing) -> Iterator[Event]:
        if found != self._last:
            self._last, self._last_change_s = found, time.monotonic()
            yield found

    def _begins_anew(self, attempt: int) -> Iterator[Event]:
        if attempt and attempt != self._attempt:
            if self._attempt:
                yield Restarted()
                self._offset = 0
            self._attempt = attempt

    def _output(self, ftp: ftplib.FTP, path: str) -> Iterator[Event]:
        size_bytes = remote_files.size(ftp, path)
        if size_bytes is None or size_bytes == self._offset:
            return
        if size_bytes < self._offset:
            yield Restarted()
            self._offset = 0
        # It may be gone between SIZE and RETR: the next look finds it where it is then.
        with suppress(ftplib.error_perm), closing(remote_files.pieces(ftp, path, self._offset)) as pieces:
            for piece in _bounded(pieces, size_bytes - self._offset, path):
                self._offset += len(piece)
                self._last_change_s = time.monotonic()
                yield Printed(piece)

    def _pause_s(self) -> float:
        is_quiet = time.monotonic() - self._last_change_s > _SOON_S
        return _LOOK_SELDOM_S if is_quiet else self._look_every_s


def _bounded(pieces: Iterator[bytes], told_bytes: int, path: str) -> Iterator[bytes]:
    """What a log brings, which may have grown since its size was told, though not without end. Raises AnswerError."""
    left_bytes = told_bytes + _MOST_GROWTH_BYTES
    for piece in pieces:
        left_bytes -= len(piece)
        if left_bytes < 0:
            raise AnswerError(f"the server sends more of {path} than it said there is")
        yield piece
