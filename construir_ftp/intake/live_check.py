"""The check of one upload: begun once there is something to see, fed as the upload grows, concluded when it is whole.

What can't be a job is refused while it is still being sent. Where no judge is to be had, or too many are busy, the
upload is judged when all of it is there. That is no fault of it. Nobody but this module asks for judges.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from construir_ftp.errors import ConstruirError, RefusedError
from construir_ftp.intake.judge_handle import JudgeHandle, Wanted
from construir_ftp.intake.judge_pool import ANY_SIZE, NOBODY, JudgePool
from construir_ftp.intake.verdict import Verdict
from construir_ftp.jobs import names

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
_NEVER = 2**63


class LiveCheck:
    """Of the file at `path`. To be closed, or used as a context. One thread at a time may use it.

    `most_bytes` is asked how long the upload may become, when its judge is. `whose` is its contributor, and
    `name` what the file is called where a refusal names a cure.
    """

    def __init__(
        self,
        judges: JudgePool,
        path: Path,
        most_bytes: Callable[[], int] = lambda: ANY_SIZE,
        whose: str = NOBODY,
        name: str = "",
    ) -> None:
        self._judges, self._path, self._most_bytes, self._whose = judges, path, most_bytes, whose
        self._name = names.in_command(name)
        self._judge: JudgeHandle | None = None
        self._try_at_bytes = FIRST_BYTES
        self._told_bytes = -_STEP_BYTES
        self._begun_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- while the upload comes --------------------------------------------------------------------------------

    def feed(self, size_bytes: int) -> None:
        """So many bytes are there. Raises RefusedError if the judge has refused the upload by now."""
        if self._judge is None and size_bytes >= self._try_at_bytes:
            self._begin(size_bytes)
        if self._judge is not None and size_bytes - self._told_bytes >= _STEP_BYTES:
            self._judge.tell(size_bytes)
            self._told_bytes = size_bytes
        self.heed()

    def heed(self) -> None:
        """Hear what the judge has said by now. Raises RefusedError if it has refused the upload."""
        try:
            if self._judge is not None:
                self._judge.heed()
        except RefusedError as refused:
            raise self._named(refused) from refused
        except ConstruirError as error:
            log.warning("%s; it will be judged when it is whole", error)
            self._try_at_bytes = _NEVER
            self.close()

    def fileno(self) -> int | None:
        """A descriptor that becomes readable when there is something to `heed`; None while no judge looks at it."""
        return None if self._judge is None else self._judge.fileno()

    def is_behind(self, size_bytes: int, part: float = 1.0) -> bool:
        """Whether of so many bytes the judge has more still to read than it may have, or than that part of it."""
        if self._judge is None:
            return False
        behind_bytes = self._judge.behind_bytes(size_bytes)
        speed = (size_bytes - behind_bytes) / max(1e-3, time.monotonic() - self._begun_s)
        most_bytes = min(MOST_BEHIND_BYTES, max(LEAST_BEHIND_BYTES, speed * _BEHIND_S))
        return behind_bytes > part * most_bytes

    def _begin(self, size_bytes: int) -> None:
        self._try_at_bytes = 2 * size_bytes
        try:
            self._judge = self._judges.follow(self._path, self._most_bytes(), self._whose)
            self._begun_s = time.monotonic()
        except (ConstruirError, OSError) as error:
            log.warning("an upload can't be judged while it comes: %s", error)

    # -- when it is whole --------------------------------------------------------------------------------------

    def hurry(self, size_bytes: int) -> None:
        """All of it, so many bytes, is there: have a judge read what is left while something else is done."""
        with suppress(OSError, ConstruirError):
            self._judge = self._judge or self._judges.judge(self._path, self._whose)
            self._judge.tell_all(size_bytes)

    def conclude(self, size_bytes: int, wanted: Wanted = lambda: True) -> Verdict:
        """The verdict on all of it, so many bytes. Raises RefusedError if it isn't a job, OSError.

        Takes the `timeout` of the judges' limits at most. `wanted` is asked every second whether anybody still waits;
        if not, the upload is refused (426). Raises ConstruirError if no judge could be had.
        """
        self._judge = self._judge or self._judges.judge(self._path, self._whose)
        try:
            found = self._judge.conclude(size_bytes, wanted)
        except RefusedError as refused:
            raise self._named(refused) from refused
        if found.upload_bytes != self._path.stat().st_size:
            raise RefusedError("the upload changed while it was being checked; send it again")
        return found.naming(self._name)

    def _named(self, refused: RefusedError) -> RefusedError:
        return refused.naming("FILE", self._name)

    def close(self) -> None:
        """End the judge, if one still looks at it."""
        judge, self._judge = self._judge, None
        if judge is not None:
            judge.close()


def check_file(path: Path, judges: JudgePool) -> Verdict:
    """What kind of job the file at `path` is, which has stopped growing. Raises RefusedError if it is none, OSError."""
    with LiveCheck(judges, path, name=path.name) as check:
        return check.conclude(path.stat().st_size)
