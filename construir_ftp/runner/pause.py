"""When no job is taken for a while, since something of ours has failed: how long, and why. Twice as long each time."""

import logging
import time

from construir_ftp.trust.seal import SigningError

log = logging.getLogger("construir.runner")

_FIRST_S = 1.0
_LONGEST_S = 300.0
# In words for anyone.
LACKS_ROOM = "there is not enough room on the disk for it beside what runs"
UNSIGNED = "results can't be signed"


class Pause:
    """Of one runner. `why` may be told to anyone, `detail` may hold paths of this host; both are of the last one."""

    def __init__(self) -> None:
        self.why = self.detail = ""
        self._pause_s = 0.0
        self._resume_at_s = 0.0

    def begin(self, why: str, detail: str) -> None:
        """Take no job for a while."""
        self._pause_s = min(_LONGEST_S, self._pause_s * 2 or _FIRST_S)
        self.why, self.detail = why, detail
        self._resume_at_s = time.monotonic() + self._pause_s
        log.error("%s; next try in %g s", detail, self._pause_s)

    def begin_by(self, error: Exception) -> None:
        """Take no job for a while, since none could be run, or published; a pause that lasts is not made longer."""
        if self.left_s:
            return
        why = UNSIGNED if isinstance(error, SigningError) else "no machine can be started"
        self.begin(why, f"no job can be run: {error}")

    def forget(self) -> None:
        """All is well: the next pause is the shortest again."""
        self._pause_s = 0.0

    @property
    def left_s(self) -> float:
        """Until jobs are taken again; 0 if they are."""
        return max(0.0, self._resume_at_s - time.monotonic())
