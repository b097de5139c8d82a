"""The lock of a spool: whoever holds it runs the spool's jobs. Anyone may ask whether it is held, and disturbs nobody.

It can be asked about without being taken for a moment, in which a runner that starts would find it held.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from construir_ftp import locks


@contextmanager
def hold(path: Path) -> Iterator[IO[bytes]]:
    """Hold the lock, made where it is missing; gives its file. Raises BlockingIOError if it is held.

    A child that inherits the file's descriptor holds the lock too.
    """
    with path.open("a+b") as file:
        locks.take(file.fileno(), wait=False)
        yield file


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock, in this process or another."""
    return locks.is_held(path)


# -- the bell ----------------------------------------------------------------------------------------------------

# The datagram that saves whoever runs a spool's jobs the wait for the next look. It may be lost, and
# anyone may send it. All it says is where to look: any but CANCELLED is WORK.
WORK, CANCELLED = b"!", b"cancelled"


def ring(path: Path, why: bytes) -> None:
    """Send one to whoever listens at `path`. Nobody listening is no error."""
    with _socket() as sender, _address(path) as address, suppress(OSError):
        sender.sendto(why, address)


@contextmanager
def listen(path: Path) -> Iterator[socket.socket]:
    """The socket at `path`: a datagram, whatever it holds, means work. It takes over from one that was left there."""
    with _socket() as receiver, _address(path) as address:
        path.unlink(missing_ok=True)
        receiver.bind(address)
        # Sending needs write permission (unix(7)), and the FTP server may be another user; all it says is: look.
        Path(address).chmod(0o666)
        yield receiver


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)


@contextmanager
def _address(path: Path) -> Iterator[str]:
    # One longer than 107 bytes does not fit into sockaddr_un (unix(7)): go by way of the directory.
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
