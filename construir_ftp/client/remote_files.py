"""Files of a server's, read from where one likes (REST), whole or in pieces."""

import ftplib
import socket
import ssl
import time
from collections.abc import Generator, Iterator
from contextlib import closing

from construir_ftp.client.connection import code
from construir_ftp.errors import AnswerError

_PIECE_BYTES = 256 * 1024
# The most that a server is believed to have to say about itself, or about a job.
_MOST_BYTES = 8 * 2**20
# Of that, all has to be there after so many of the session's time-outs.
_SMALL_TIMEOUTS = 5
# What has to come of anything in each of them, lest a server hold us for ever by a byte now and then.
_LEAST_BYTES = 1024


def size(ftp: ftplib.FTP, path: str) -> int | None:
    """A file's size in bytes; None where there is no such file."""
    try:
        return ftp.size(path)
    except ftplib.error_perm:
        return None


def pieces(ftp: ftplib.FTP, path: str, offset: int = 0) -> Generator[bytes, None, None]:
    """What is in a file from `offset` on; to be closed, which ends the transfer.

    Raises ftplib.error_perm where there is none, AnswerError where it hardly comes, and what LOST names.
    """
    return _received(ftp, f"RETR {path}", offset)


def _received(ftp: ftplib.FTP, command: str, offset: int = 0) -> Generator[bytes, None, None]:
    with ftp.transfercmd(command, offset or None) as data:
        yield from _steadily(data, ftp.host, ftp.timeout or 0)
        if isinstance(data, ssl.SSLSocket):
            data.unwrap()
    ftp.voidresp()


def _steadily(data: socket.socket, host: str, timeout_s: float) -> Iterator[bytes]:
    """What comes, up to its end. Only the time that is spent waiting for it counts against the server."""
    waited_s, came_bytes, asked_s = 0.0, 0, time.monotonic()
    while piece := data.recv(_PIECE_BYTES):
        waited_s += time.monotonic() - asked_s
        came_bytes += len(piece)
        if waited_s > timeout_s:
            if came_bytes < _LEAST_BYTES:
                raise AnswerError(f"{host} sends less than {_LEAST_BYTES} bytes in {timeout_s:g} s; try again later")
            waited_s, came_bytes = 0.0, 0
        yield piece
        asked_s = time.monotonic()


def small(ftp: ftplib.FTP, path: str) -> bytes | None:
    """All of a file that can't be long; None where there is no such file. Raises AnswerError if it is long."""
    try:
        return _whole(ftp, f"RETR {path}", path)
    except ftplib.error_perm as error:
        if code(error) == 550:
            return None
        raise


def _whole(ftp: ftplib.FTP, command: str, path: str) -> bytes:
    """All that a command brings. Raises AnswerError where that is too much, or takes too long."""
    content, most_s = bytearray(), _SMALL_TIMEOUTS * (ftp.timeout or 0)
    deadline_s = time.monotonic() + most_s
    with closing(_received(ftp, command)) as received:
        for piece in received:
            content += piece
            if len(content) > _MOST_BYTES:
                raise AnswerError(f"{path} on {ftp.host} is longer than the {_MOST_BYTES >> 20} MiB that it may have")
            if time.monotonic() > deadline_s:
                raise AnswerError(f"{path} on {ftp.host} takes longer than {most_s:g} s")
    return bytes(content)


def names(ftp: ftplib.FTP, path: str) -> list[str]:
    """The names in a directory; none where there is no such directory."""
    try:
        # ftplib's nlst() goes over to ASCII mode, in which there is no SIZE.
        listed = _whole(ftp, f"NLST {path}", f"the listing of {path}")
    except ftplib.error_perm as error:
        if code(error) == 550:
            return []
        raise
    return [line.rpartition("/")[2] for line in listed.decode(errors="replace").splitlines()]
