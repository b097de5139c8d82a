"""What jobs that wait or run still need of what others left: results, layers and base images, which must not be deleted
meanwhile.

Read from their records; nothing is kept of it, so a job that is gone needs nothing.
"""

from collections.abc import Iterator
from contextlib import suppress

from construir_ftp.errors import ConstruirError, RefusedError
from construir_ftp.jobs import request
from construir_ftp.jobs.job import read_result
from construir_ftp.jobs.request import Dependencies, Wishes
from construir_ftp.jobs.spool import Record, Spool

# A job may go from one state to the other, and back, between two looks.
_STATES = ("queue", "running", "queue")


def results(spool: Spool) -> set[str]:
    """The ids of all jobs whose results are needed."""
    return {job_id for record in _records(spool) for job_id in record.after}


def dependencies(spool: Spool) -> list[Dependencies]:
    """What each job asks for, where it asks for anything."""
    return [asked.dependencies for asked in _wishes(spool) if asked.dependencies != Dependencies()]


def bases(spool: Spool) -> set[str]:
    """The names of the base images that jobs ask for."""
    return {asked.base for asked in _wishes(spool) if asked.base}


def bases_of_results(spool: Spool, most: int) -> list[str]:
    """The digests of the base images that results in done/ were made on, of the newest result first; `most` of them."""
    found: dict[str, None] = {}
    for job in reversed(spool.jobs("done")):
        if len(found) >= most:
            break
        with suppress(ConstruirError):
            if used := read_result(job).base_image:
                found[used.digest] = None
    return list(found)


def _wishes(spool: Spool) -> Iterator[Wishes]:
    for text in {record.construir_toml for record in _records(spool)}:
        try:
            yield request.read(text)
        except RefusedError:  # of an older version: it will be told so when it runs
            continue


def _records(spool: Spool) -> Iterator[Record]:
    for state in _STATES:
        yield from filter(None, spool.records(state).values())
