"""The logs of jobs that run, as files that a web server may read: the job's own directory is closed to it.

A log only ever grows while its job runs, so what has come is appended to the copy. Nothing else of a job is copied.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from construir_ftp import files
from construir_ftp.jobs.spool import Spool

LOGS = ("output.log", "console.log")
# What is copied of one log at a time; the rest is for the next look.
_PIECE_BYTES = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Logs:
    """Copies of the logs in the spool's running/, in the site's."""

    def __init__(self, spool: Spool, copies: Path) -> None:
        self._spool, self._copies = spool, copies
        # The inode of each log that was copied: a job that is begun again has new ones.
        self._seen: dict[Path, int] = {}

    def follow(self, jobs: list[str]) -> None:
        """Have what these jobs have said since, and nothing of any other."""
        for gone in {path.name for path in self._copies.iterdir()} - set(jobs):
            files.remove(self._copies / gone)
        self._seen = {log: inode for log, inode in self._seen.items() if log.parent.name in jobs}
        for job_id in jobs:
            if (job := self._spool.find_job("running", job_id)) is None:
                continue
            for log in LOGS:
                with suppress(FileNotFoundError):  # there is none yet, or the job has just ended
                    self._extend(job.path / log, self._copies / job_id / log)

    def _extend(self, log: Path, copy: Path) -> None:
        with _opened(log) as source:
            copy.parent.mkdir(exist_ok=True)
            inode = os.fstat(source.fileno()).st_ino
            with copy.open("ab" if self._seen.get(log) == inode else "wb") as target:
                self._seen[log] = inode
                source.seek(target.tell())
                target.write(source.read(_PIECE_BYTES))


def of(copies: Path) -> list[str]:
    """Which logs of one job there are."""
    return [log for log in LOGS if (copies / log).exists()]


def _opened(log: Path) -> IO[bytes]:
    """A log to be read; what isn't a regular file must neither be followed nor waited for."""
    return os.fdopen(os.open(log, _READ), "rb")


def end_of(log: Path, most_bytes: int) -> tuple[bytes, int]:
    """The end of a log, from the beginning of a line on, and the size of all of it in bytes; empty if there is none."""
    try:
        with _opened(log) as file:
            size_bytes = file.seek(0, os.SEEK_END)
            file.seek(max(0, size_bytes - most_bytes))
            content = file.read(most_bytes)
    except OSError:
        return b"", 0
    return (content.partition(b"\n")[2] or content if size_bytes > most_bytes else content), size_bytes
