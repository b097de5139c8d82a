"""An upload and its judge, from the first 128 KiB on: what can't be a job is refused while it is still being sent.

Where no judge is to be had, or too many are busy, the upload is judged when all of it is there. That is no fault of it.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from construir_ftp.errors import ConstruirError, RefusedError
from construir_ftp.intake.judge_handle import Hearing
from construir_ftp.intake.judge_pool import Court

log = logging.getLogger("construir.ftp")

# The head of every file system, as far as anything is read of it, and something to unpack it from.
FIRST_BYTES = 128 * 2**10
# The judge is woken no more often than it is worth.
_STEP_BYTES = 256 * 2**10
# How far a judge may fall behind: by what it has read in so many seconds up to now, within these bounds. It is the time
# that counts for the client, who waits for the verdict as long. Measured: 16 MiB of bzip2 took seconds, and on a host
# that had much else to do a quarter of a minute. With less than a MiB before it the judge might run dry.
_BEHIND_S = 0.5
LEAST_BEHIND_BYTES, MOST_BEHIND_BYTES = 2**20, 16 * 2**20


class Following:
    """Used by the event loop while the upload comes; `take` what there is to conclude it elsewhere, or `close` it.

    `most_bytes` is asked how long it may become, when its judge is.
    """

    def __init__(self, court: Court, path: Path, most_bytes: Callable[[], int]) -> None:
        self._court, self._path, self._most_bytes = court, path, most_bytes
        self._hearing: Hearing | None = None
        self._try_at_bytes = FIRST_BYTES
        self._told_bytes = -_STEP_BYTES
        self._begun_s = 0.0

    @property
    def hearing(self) -> Hearing | None:
        """The hearing, if there is one; readable when there is something to `heed`."""
        return self._hearing

    def grow(self, size_bytes: int) -> None:
        """So many bytes are there. Raises RefusedError if the judge has refused it by now."""
        if self._hearing is None and size_bytes >= self._try_at_bytes:
            self._begin(size_bytes)
        if self._hearing is not None and size_bytes - self._told_bytes >= _STEP_BYTES:
            self._hearing.tell(size_bytes)
            self._told_bytes = size_bytes
        self.heed()

    def heed(self) -> None:
        """Hear what the judge has said by now. Raises RefusedError if it has refused the upload."""
        try:
            if self._hearing is not None:
                self._hearing.heed()
        except RefusedError:
            raise
        except ConstruirError as error:
            log.warning("%s; it will be judged when it is whole", error)
            self.close()

    def is_behind(self, size_bytes: int, part: float = 1.0) -> bool:
        """Whether of so many bytes the judge has more still to read than it may have, or than that part of it."""
        if self._hearing is None:
            return False
        behind_bytes = self._hearing.behind_bytes(size_bytes)
        speed = (size_bytes - behind_bytes) / max(1e-3, time.monotonic() - self._begun_s)
        most_bytes = min(MOST_BEHIND_BYTES, max(LEAST_BEHIND_BYTES, speed * _BEHIND_S))
        return behind_bytes > part * most_bytes

    def take(self, size_bytes: int) -> Hearing | None:
        """The hearing, for whoever concludes it, who has it from now on; its judge knows of all there is."""
        taken, self._hearing = self._hearing, None
        if taken is not None:
            taken.tell(size_bytes)
        return taken

    def close(self) -> None:
        """End the hearing, and don't begin another."""
        if self._hearing is not None:
            self._hearing.close()
        self._hearing = None
        self._try_at_bytes = 2**63

    def _begin(self, size_bytes: int) -> None:
        self._try_at_bytes = 2 * size_bytes
        try:
            self._hearing, self._begun_s = self._court.follow(self._path, self._most_bytes()), time.monotonic()
        except (ConstruirError, OSError) as error:
            log.warning("an upload can't be judged while it comes: %s", error)
