"""How whoever makes layers waits, for a lock or for a program: each wait ends when it is told to stop."""

import math
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from construir_ftp import locks
from construir_ftp.errors import CommandError, StoppedError

_LOOK_S = 0.1


def stopped(stop: socket.socket | None) -> bool:
    """Whether whoever waits is to stop: `stop` is readable."""
    if stop is None:
        return False
    poll = select.poll()
    poll.register(stop, select.POLLIN)
    return bool(poll.poll(0))


def demand_not_stopped(stop: socket.socket | None) -> None:
    """Raises StoppedError if `stop` is readable."""
    if stopped(stop):
        raise StoppedError("told to stop")


@contextmanager
def locked(path: Path, stop: socket.socket | None, patience_s: float = math.inf, late: str = "") -> Iterator[int]:
    """Hold a lock; gives its descriptor (locks.held).

    Raises StoppedError; CommandError, with the words `late`, after that patience.
    """
    deadline_s = time.monotonic() + patience_s
    with ExitStack() as stack:
        while True:
            demand_not_stopped(stop)
            try:
                lock = stack.enter_context(locks.held(path, wait=False))
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline_s:
                    raise CommandError(late) from error
                time.sleep(_LOOK_S)
        yield lock
