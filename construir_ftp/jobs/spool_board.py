"""The board of a spool, made again and again. Results never change: each is read once."""

from construir_ftp.errors import ConstruirError
from construir_ftp.jobs import board, inquiry
from construir_ftp.jobs.board import Board, Line
from construir_ftp.jobs.job import read_result
from construir_ftp.jobs.spool import Job, Spool


class Looks:
    """At a spool, again and again; the `last` results are shown."""

    def __init__(self, spool: Spool, min_free_bytes: int, last: int) -> None:
        self._spool, self._min_free_bytes, self._last = spool, min_free_bytes, last
        self._ended: dict[str, Line] = {}

    def look(self) -> Board:
        """How it is now."""
        summary = inquiry.summary(self._spool, self._min_free_bytes)
        records = {**self._spool.records("queue"), **self._spool.records("running")}
        contributors = {job_id: record.contributor for job_id, record in records.items() if record}
        newest = self._spool.names("done")[::-1][: self._last]
        self._ended = {job_id: line for job_id in newest if (line := self._ended.get(job_id) or self._read(job_id))}
        return Board(summary=summary, lines=[*board.live(summary, contributors), *self._ended.values()])

    def _read(self, job_id: str) -> Line | None:
        try:
            return board.of_result(job_id, read_result(Job(self._spool.state("done") / job_id)))
        except ConstruirError:  # pruned meanwhile, or damaged
            return None
