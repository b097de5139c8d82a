"""The jobs of a server as lines for a screen, by one session. Directories are listed only when something has ended."""

import ftplib

from construir_ftp.client import remote_files, status
from construir_ftp.errors import MissingError
from construir_ftp.jobs import board
from construir_ftp.jobs.board import Board, Line


class Looks:
    """At a server, again and again; the `last` results are shown."""

    def __init__(self, last: int) -> None:
        self._last = last
        self._alive: set[str] | None = None
        self._ended: dict[str, Line] = {}

    def look(self, ftp: ftplib.FTP) -> Board:
        """How it is now. Raises what a session does, and AnswerError."""
        summary = status.overview(ftp)
        alive = {*summary.queue, *(slot.job for slot in summary.running)}
        if self._alive is None or self._alive - alive:
            self._list(ftp)
        self._alive = alive
        return Board(summary=summary, lines=[*board.live(summary, {}), *self._ended.values()])

    def _list(self, ftp: ftplib.FTP) -> None:
        # An id begins with the time of its arrival.
        newest = sorted(filter(status.is_name, remote_files.names(ftp, "/done")), reverse=True)[: self._last]
        self._ended = {
            job_id: line
            for job_id in newest
            if (line := self._ended.get(job_id) or self._read(ftp, job_id)) is not None
        }

    def _read(self, ftp: ftplib.FTP, job_id: str) -> Line | None:
        try:
            return board.of_result(job_id, status.result(ftp, job_id))
        except MissingError:  # pruned meanwhile
            return None
