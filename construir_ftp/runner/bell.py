"""What wakes a node: no datagram comes from another process, so it glances at the queue's directory, and rings itself.

The time of a directory is a hint and no more: over NFS it may be seen late. A node looks for work now and then without.
"""

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from construir_ftp import files
from construir_ftp.jobs import ipc

log = logging.getLogger("construir.runner")

# Three calls of this kernel, or one question to a file server.
_LOCAL_S, _REMOTE_S = 0.05, 0.5


@contextmanager
def of(directory: Path) -> Iterator[socket.socket]:
    """Becomes readable, with a datagram as the front's has it, when something has come into a directory or left it."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there:
        there.setblocking(False)
        over = threading.Event()
        every_s = _LOCAL_S if files.is_local(directory) else _REMOTE_S
        thread = threading.Thread(target=_glance, args=(directory, there, over, every_s), name="bell")
        thread.start()
        try:
            yield here
        finally:
            over.set()
            thread.join()


def _glance(directory: Path, bell: socket.socket, over: threading.Event, every_s: float) -> None:
    clock = files.Clock(directory)
    while not over.wait(every_s):
        try:
            if clock.has_changed():
                with suppress(BlockingIOError):  # it has rung often enough
                    bell.send(ipc.WORK)
        except OSError as error:
            log.debug("%s: %s", directory, error)
