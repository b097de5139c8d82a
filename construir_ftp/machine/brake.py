"""What stops all machines of this process, and lets them go on.

A machine is stopped by SIGSTOP, which a job that has taken it over can't refuse; its memory stays. The thread that
follows a machine does both, and only where it waits for the guest: whatever is asked of a monitor is answered.
"""

import os
import threading

from construir_ftp.jail.prisoner import Prisoner
from construir_ftp.machine.deadlines import Deadlines

# What a machine starts while it is being stopped is stopped this much later.
AGAIN_S = 1.0


class _Brake:
    """One for all machines."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: set[int] = set()
        self.is_on = False

    def turn(self, is_on: bool) -> None:
        with self._lock:
            self.is_on = is_on
            for listener in self._listeners:
                os.eventfd_write(listener, 1)

    def join(self) -> int:
        """A new descriptor that is readable when there may be something to obey, as at first."""
        listener = os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        with self._lock:
            self._listeners.add(listener)
        return listener

    def leave(self, listener: int) -> None:
        with self._lock:
            self._listeners.remove(listener)
        os.close(listener)


_brake = _Brake()


def pause() -> None:
    """Stop all machines there are, and those that are started from now on."""
    _brake.turn(True)


def resume() -> None:
    """Let them go on."""
    _brake.turn(False)


class Rider:
    """One machine under the brake; `changed` is readable when it has something to `obey`."""

    def __init__(self, prisoner: Prisoner, deadlines: Deadlines) -> None:
        self._prisoner, self._deadlines = prisoner, deadlines
        self.changed = _brake.join()
        self.stands = False

    def obey(self) -> None:
        """Stop the machine, or let it go on, its deadlines with it."""
        os.eventfd_read(self.changed)
        if _brake.is_on:
            self.stand()
        elif self.stands:
            self._prisoner.go_on()
            self._deadlines.go_on()
            self.stands = False

    def stand(self) -> None:
        """Stop it; to be called again, since what it was starting is not stopped by the first time."""
        self._deadlines.stand_still()
        self._prisoner.stop()
        self.stands = True

    def close(self) -> None:
        """Listen no longer."""
        _brake.leave(self.changed)
