"""Room on the spool's file system: who may have how much of it. One rule, for uploads and for jobs that are to start.

A job that runs can fill its disk to the last byte, and then as much again is written, since its result is packed
before its disk is deleted, and its artifacts. So much is kept for each that runs, less what it has taken already; and
for the waiting job that may need the most, lest uploads take the room without which it could never run. What is left
above `spool.min_free` is for uploads:

    free - min_free - (running: what each may yet write) - (waiting: the most that one may write)

A waiting job is started once it finds room beside those that run. If none runs there is none to wait for: it is started
as long as min_free is kept, and what it then lacks it lacks alone. Small things such as logs, and the bit by which
packing can lengthen what can't be compressed, are what min_free is for. The disks of earlier results that a job depends
on are unpacked before it begins. Beside others it is started only if these find room, too, with their full sizes, and
others pass it by till then; where they find none although nothing else runs, the job is told so.
"""

import functools
import time
from contextlib import suppress
from pathlib import Path

from construir_ftp import files
from construir_ftp.errors import ConstruirError, RefusedError
from construir_ftp.jobs.job import Wants, anyone, disks_of_results, read_result
from construir_ftp.jobs.result import ARTIFACTS, OUTPUT
from construir_ftp.jobs.spool import Job, Record, Spool

# How old the count of what is kept may be while an upload is written, piece by piece.
_COUNTED_S = 1.0


class Room:
    """Of one spool. Sizes in bytes. Safe to use from several threads."""

    def __init__(self, spool: Spool, min_free: int) -> None:
        self._spool, self._min_free = spool, min_free
        self._kept_bytes, self._counted_at = 0, float("-inf")

    def for_uploads(self, upload: Record | None = None) -> int:
        """What may still come in; below 0, nothing. With a record: what would be left if that job waited too."""
        needs = [_needs(record) for record in self._spool.records("queue").values()]
        self._kept_bytes = self._for_running() + max([*needs, _needs(upload)])
        self._counted_at = time.monotonic()
        return self._free() - self._kept_bytes

    def for_more(self) -> int:
        """The same, of an upload under way: quicker, by a count that may be a second old."""
        if time.monotonic() - self._counted_at > _COUNTED_S:
            return self.for_uploads()
        return self._free() - self._kept_bytes

    def check(self, record: Record) -> None:
        """Refuse (RefusedError, 452) a job whose image may need more room than there is."""
        if self.for_uploads(record) < 0:
            raise RefusedError(
                f"no room now for what an image of {record.image_bytes} bytes needs; try later, or make it smaller", 452
            )

    def lets_start(self, job_id: str) -> bool:
        """Whether a waiting job finds the room that it may need."""
        spare, record = self._free(), self._spool.records("queue").get(job_id)
        if (scratch := self._spool.claims.scratch) and files.free_bytes(scratch) < _needs(record):
            return False
        if not self._spool.names("running"):
            return spare >= 0
        return spare - self._for_running() >= _needs(record)

    def for_results(self, wants: Wants = anyone) -> Wants:
        """Which of the wanted jobs find room, beside what runs now, for the results that they depend on. Others pass by
        those that don't: what is in a result can be far less than its size.
        """
        if not self._spool.names("running"):
            return wants
        spare = functools.cache(lambda: self._free() - self._for_running())
        return lambda record: (
            wants(record)
            and (record is None or not record.after or spare() >= _needs(record) + self._results_bytes(record))
        )

    def _free(self) -> int:
        return files.free_bytes(self._spool.path) - self._min_free

    def _for_running(self) -> int:
        records = self._spool.records("running")
        running = [(job, records.get(job.id)) for job in self._spool.jobs("running")]
        return sum(self._may_yet_write(job, record) for job, record in running if record)

    def _may_yet_write(self, job: Job, record: Record) -> int:
        """The most that a job which runs may still write."""
        needs, taken = _needs(record), 0
        with suppress(FileNotFoundError):
            # It may have been made larger than it came.
            needs = max(needs, 2 * job.disk.lstat().st_size + record.artifacts_bytes)
        written = [job.disk, job.path / record.image_name(), *job.path.glob(f"{ARTIFACTS}/*")]
        if not (job.path / OUTPUT).exists():  # once it does, the results are there, and only read
            needs += self._results_bytes(record)
            written += disks_of_results(job)
        for file in written:
            with suppress(FileNotFoundError):
                taken += files.allocated_bytes(file)
        return max(0, needs - taken)

    def _results_bytes(self, record: Record) -> int:
        """What the disks of the results take that a job depends on, at most, as far as those are there."""
        total_bytes = 0
        for result in record.after:
            with suppress(ConstruirError):
                total_bytes += _image_bytes(self._spool.state("done") / result)
        return total_bytes


def _needs(record: Record | None) -> int:
    """The most that a job writes from its start to its end: its disk, its packed result, its artifacts."""
    return 2 * (record.image_bytes + record.space_bytes) + record.artifacts_bytes if record else 0


@functools.lru_cache(maxsize=4096)
def _image_bytes(done: Path) -> int:
    """The size of the image in a result, which never changes. Raises ConstruirError where there is none, or not yet."""
    return read_result(Job(done)).image_bytes
