"""Which results have come since the last look. Results never change, and done/ is listed only when it has changed."""

from contextlib import suppress
from datetime import UTC, datetime

from construir_ftp import files
from construir_ftp.errors import ConstruirError, is_of_the_computer
from construir_ftp.jobs.job import read_result
from construir_ftp.jobs.result import Result
from construir_ftp.jobs.spool import Job, Spool

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Arrivals:
    """Of one spool."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._clock = files.Clock(spool.state("done"))
        # What could not be read the last time, since this computer could not: it comes once more.
        self.unread: set[str] = set()

    def look(self) -> list[str] | None:
        """The id of every result; None if nothing has changed since the last time, and nothing is left to be read."""
        if not self._clock.has_changed() and not self.unread:
            return None
        # What can't be printed, such as a name that is no UTF-8, is no id of a job.
        return [name for name in self._spool.names("done") if name.isprintable()]

    def since(self, job_ids: set[str], moment: datetime) -> set[str]:
        """Those of these ids whose results have come since then."""
        found = set()
        for job_id in job_ids:
            with suppress(FileNotFoundError):
                if (self._spool.state("done") / job_id).stat().st_mtime >= moment.timestamp():
                    found.add(job_id)
        return found

    def read(self, job_ids: set[str]) -> list[tuple[str, Result]]:
        """The results of these ids in the order that they were published.

        What can't be read is no news, but for what is `unread` then.
        """
        found = []
        self.unread = set()
        for job_id in job_ids:
            try:
                found.append((job_id, read_result(Job(self._spool.state("done") / job_id))))
            except ConstruirError as error:
                if error.__cause__ is not None and is_of_the_computer(error.__cause__):
                    self.unread.add(job_id)
        return sorted(found, key=lambda pair: (pair[1].published or _LONG_AGO, pair[0]))
