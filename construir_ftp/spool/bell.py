"""The datagram that saves whoever runs a spool's jobs the wait for the next look. It says nothing, and may be lost."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def ring(path: Path) -> None:
    """Send one to whoever listens at `path`. Nobody listening is no error."""
    with _socket() as sender, _address(path) as address, suppress(OSError):
        sender.sendto(b"!", address)


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
