"""How long an upload may take: fast enough on average, and done in time, or it loses its place.

That nothing at all comes for `ftp.idle_timeout` is noticed elsewhere; a byte now and then would go on for ever.
"""

from collections.abc import Callable
from typing import Any

from construir_ftp.config import FtpSection


class Pace:
    """Watches one upload from now on, until `stop`; calls `break_off` with the reply if it is too slow, or late."""

    def __init__(
        self, ioloop: Any, ftp: FtpSection, received_bytes: Callable[[], int], break_off: Callable[[str], None]
    ) -> None:
        self._ftp, self._received_bytes, self._break_off = ftp, received_bytes, break_off
        self._before_bytes = received_bytes()
        self._tasks = [
            ioloop.call_later(ftp.upload_timeout, self._is_late),
            ioloop.call_every(ftp.upload_rate_window, self._look),
        ]

    def stop(self) -> None:
        """The upload has come to its end."""
        for task in self._tasks:
            if not task.cancelled:
                task.cancel()

    def _look(self) -> None:
        before_bytes, self._before_bytes = self._before_bytes, self._received_bytes()
        if self._before_bytes - before_bytes < self._ftp.min_upload_rate * self._ftp.upload_rate_window:
            window = f"{self._ftp.upload_rate_window:g} s"
            self._break_off(f"426 Slower than {self._ftp.min_upload_rate} bytes per second, over {window}.")

    def _is_late(self) -> None:
        self._break_off(f"426 Not done after {self._ftp.upload_timeout:g} s.")
