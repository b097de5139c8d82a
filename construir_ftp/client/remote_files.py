"""Files of a server's, read from where one likes (REST), whole or in pieces."""

import ftplib
import ssl
from collections.abc import Iterator

from construir_ftp.client.connection import code
from construir_ftp.errors import AnswerError

_PIECE_BYTES = 256 * 1024
# The most that a server is believed to have to say about itself, or about a job.
_MOST_BYTES = 16 * 2**20


def size(ftp: ftplib.FTP, path: str) -> int | None:
    """A file's size in bytes; None where there is no such file."""
    try:
        return ftp.size(path)
    except ftplib.error_perm:
        return None


def pieces(ftp: ftplib.FTP, path: str, offset: int = 0) -> Iterator[bytes]:
    """What is in a file from `offset` on. Raises ftplib.error_perm where there is none, and what LOST names."""
    return _received(ftp, f"RETR {path}", offset)


def _received(ftp: ftplib.FTP, command: str, offset: int = 0) -> Iterator[bytes]:
    with ftp.transfercmd(command, offset or None) as data:
        while piece := data.recv(_PIECE_BYTES):
            yield piece
        if isinstance(data, ssl.SSLSocket):
            data.unwrap()
    ftp.voidresp()


def small(ftp: ftplib.FTP, path: str) -> bytes | None:
    """All of a file that can't be long; None where there is no such file. Raises AnswerError if it is long."""
    content = bytearray()
    try:
        for piece in pieces(ftp, path):
            content += piece
            if len(content) > _MOST_BYTES:
                raise AnswerError(f"{path} is longer than anything that is of use")
    except ftplib.error_perm as error:
        if code(error) == 550:
            return None
        raise
    return bytes(content)


def names(ftp: ftplib.FTP, path: str) -> list[str]:
    """The names in a directory; none where there is no such directory."""
    try:
        # ftplib's nlst() goes over to ASCII mode, in which there is no SIZE.
        listed = b"".join(_received(ftp, f"NLST {path}"))
    except ftplib.error_perm as error:
        if code(error) == 550:
            return []
        raise
    return [line.rpartition("/")[2] for line in listed.decode(errors="replace").splitlines()]
