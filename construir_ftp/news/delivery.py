"""What may go wrong with a message, and how long it may take."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from construir_ftp.errors import ConstruirError

_AGAIN_S = 0.5


class UndeliveredError(ConstruirError):
    """It did not get there, and may at another time."""


class RejectedError(ConstruirError):
    """Whoever got it will never take it."""


class Connection(Protocol):
    """What has a socket, once it is connected: smtplib's and http.client's."""

    sock: socket.socket | None


@contextmanager
def deadline(connection: Connection, seconds: float) -> Iterator[None]:
    """Within, the connection is shut down once the time is over, also where bytes keep coming one by one.

    Raises TimeoutError then, at the latest on leaving the context: half a reply is none.
    """
    is_done, is_late = threading.Event(), threading.Event()

    def shut() -> None:
        pause_s = seconds
        while not is_done.wait(pause_s):
            pause_s = _AGAIN_S
            is_late.set()
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

    watching = threading.Thread(target=shut, name="deadline", daemon=True)
    watching.start()
    try:
        yield
    finally:
        is_done.set()
        watching.join()
    if is_late.is_set():
        raise TimeoutError(f"not done after {seconds:g} s")
