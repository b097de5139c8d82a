"""What the service manager is told of a part that it has started: that it is ready, and works (sd_notify(3)).

Without one nothing is told: NOTIFY_SOCKET is what systemd sets, and WATCHDOG_USEC where it wants signs of life.
"""

import math
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

# Signs of life come so much more often than is asked for: a host that is busy delays some.
_SPARE = 4
_LEAST_S = 0.1
_MICROSECONDS = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)


class Manager:
    """Whoever has started this process. `alive_every_s` is how often a sign of life is due; infinite if never."""

    def __init__(self, address: str, alive_every_s: float) -> None:
        # A first @ stands for the zero byte of an abstract socket (unix(7)).
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.alive_every_s = alive_every_s

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Manager":
        """As the environment of this process says."""
        watchdog = environment.get("WATCHDOG_USEC", "")
        is_meant = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        every_s = math.inf
        if is_meant and _MICROSECONDS.fullmatch(watchdog):
            every_s = max(_LEAST_S, int(watchdog) / 1e6 / _SPARE)
        return cls(environment.get("NOTIFY_SOCKET", ""), every_s)

    def ready(self) -> None:
        """The part does what it is for."""
        self._tell(b"READY=1")

    def alive(self) -> None:
        """The part has just done some of it."""
        self._tell(b"WATCHDOG=1")

    @contextmanager
    def patient(self, longest_s: float) -> Iterator[None]:
        """Within, it waits for something that has a deadline of its own, and gives no sign of life for so long.

        The same of a start or a stop: each may take so much longer.
        """
        watchdog_s = self.alive_every_s * _SPARE
        longer = {"EXTEND_TIMEOUT_USEC": longest_s, "WATCHDOG_USEC": longest_s + watchdog_s}
        self._tell_times(longer)
        try:
            yield
        finally:
            self._tell_times({"WATCHDOG_USEC": watchdog_s})

    def _tell_times(self, times_s: Mapping[str, float]) -> None:
        lines = [f"{name}={round(seconds * 1e6)}" for name, seconds in times_s.items() if math.isfinite(seconds)]
        if lines:
            self._tell("\n".join(lines).encode())

    def _tell(self, what: bytes) -> None:
        if not self._address:
            return
        # A manager that is not there or doesn't listen is no reason to stop: it will see for itself.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender, suppress(OSError):
            sender.setblocking(False)
            sender.sendto(what, self._address)
