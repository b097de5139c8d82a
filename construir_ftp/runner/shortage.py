"""What a runner outlives: a call that this computer could not do, such as with too many files open, or a full disk.

What was begun then is left, and looked at once more a little later. It is said once, and again when it is over.
"""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from construir_ftp import errors
from construir_ftp.jobs.spool import Job, Spool

log = logging.getLogger("construir.runner")

# So long it waits before it tries again.
PAUSE_S = 1.0


class Shortage:
    """Of one runner. `lasts` while the last try has failed."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self.lasts = False
        # The jobs that we hold, and nobody runs.
        self._left: set[str] = set()
        self._may_have_left_others = False

    @contextmanager
    def outlived(self) -> Iterator[None]:
        """Within, such an error ends what is being done, and nothing else."""
        try:
            yield
        except OSError as error:
            if not errors.is_of_the_computer(error):
                raise
            if not self.lasts:
                log.error("jobs can't be looked after: %s; tried again every %g s", error, PAUSE_S)  # noqa: TRY400
            self.lasts = self._may_have_left_others = True
        else:
            if self.lasts:
                log.info("jobs are looked after again")
            self.lasts = False

    def leave(self, job: Job, error: Exception) -> bool:
        """Whether a job failed by such an error; then it is given back once it is in nobody's hands. Safe to call from
        any thread.
        """
        if not errors.is_of_the_computer(error):
            return False
        self._left.add(job.id)
        return True

    def give_back(self, in_hand: Collection[str]) -> None:
        """Put what was left into the queue, or into done/ if it has its result; but not those ids. Raises OSError."""
        if not self._may_have_left_others and self._left.issubset(in_hand):
            return
        for job in self._spool.take_back(self._spool.claims.path, in_hand):
            log.warning("job %s: back in the queue, since this computer could not do what it takes", job.id)
        self._may_have_left_others = False
        self._left.intersection_update(in_hand)
