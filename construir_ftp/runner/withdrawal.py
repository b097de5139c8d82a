"""The waiting jobs whose end has been asked for.

Each has its wish in its own directory, and there may be ten thousand of them. So they are looked through when the
datagram says that there is a wish, and now and then, because a datagram can be lost.
"""

import time

from construir_ftp.jobs import ipc
from construir_ftp.jobs.spool import Job, Spool


class Withdrawal:
    """Those of one spool, of which the caller holds the lock."""

    def __init__(self, spool: Spool, every_s: float) -> None:
        self._spool, self._every_s = spool, every_s
        self._look_at = 0.0

    def hear(self, datagram: bytes = ipc.CANCELLED) -> None:
        """Look at the next chance, if that is what the datagram says."""
        if datagram == ipc.CANCELLED:
            self._look_at = 0.0

    def take(self) -> list[Job]:
        """queue -> running: those that were found."""
        now = time.monotonic()
        if now < self._look_at:
            return []
        self._look_at = now + self._every_s
        return self._spool.withdraw()
