"""How long to go on trying when a connection was lost: with growing pauses, from the moment of the last success."""

import time
from collections.abc import Callable

from construir_ftp.client.address import Address
from construir_ftp.client.connection import meaning
from construir_ftp.errors import TryLaterError, UnreachableError

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0


class Patience:
    """Of one errand. A server that was never reached is not waited for."""

    def __init__(self, total_s: float, told: Callable[[str], None]) -> None:
        self._total_s, self._told = total_s, told
        self._pause_s = _FIRST_PAUSE_S
        self._lost_s: float | None = None
        self._has_begun = False

    def begin(self) -> None:
        """There is a server that lets us in."""
        self._has_begun = True

    def succeed(self) -> None:
        """Something has come or gone that hadn't before."""
        self._has_begun, self._lost_s, self._pause_s = True, None, _FIRST_PAUSE_S

    def wait(self, lost: Exception, address: Address) -> None:
        """Pause before the next try, or raise what `lost` means (UnreachableError, TryLaterError, AnswerError)."""
        now_s = time.monotonic()
        self._lost_s = now_s if self._lost_s is None else self._lost_s
        why = meaning(lost, address)
        if not self._has_begun or now_s + self._pause_s > self._lost_s + self._total_s:
            raise why from lost
        if isinstance(why, UnreachableError | TryLaterError):
            self._told(f"the connection was lost, trying again in {self._pause_s:g} s ({why})")
        time.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
