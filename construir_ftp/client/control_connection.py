"""What a server says on the control connection, and where it says its data are: bounded, whoever it is.

A server is a stranger's. A reply may have so many bytes, and take so long; a number in it is read only where it makes
sense. What is beyond that is an AnswerError, which no patience tries again.
"""

import ftplib
import re
import select
import time
from collections.abc import Callable

from construir_ftp.errors import AnswerError

# FEAT, HELP and a greeting of many lines take a thousandth of that.
_MOST_REPLY_BYTES = 64 * 1024
_READ_BYTES = 4096
# ftplib gives numbers of any length to int(), and forgets a data connection over what that raises.
_MANY_DIGITS = re.compile(r"[0-9]{100}")
# RFC 3659, 4.2, leaves it open; files have 63 bits on every system.
_SIZE = re.compile(r"213 +([0-9]{1,18})\s*")


class BoundedFTP(ftplib.FTP):
    """A session whose replies end. The time-out of the control connection's socket is that of a whole reply."""

    _unread = b""
    # What to do if no greeting has come after so many seconds, before it is waited for any longer.
    when_silent: tuple[float, Callable[[], None]] | None = None

    def getresp(self) -> str:
        """A reply; connect() asks for the greeting by it."""
        if self.welcome is None and self.when_silent is not None:
            assert self.sock is not None
            silence_s, do = self.when_silent
            if not select.select([self.sock], [], [], silence_s)[0]:
                do()
        return super().getresp()

    def getmultiline(self) -> str:
        """One reply, its lines divided by \\n (RFC 959, 4.2). Raises AnswerError, EOFError, TimeoutError."""
        assert self.sock is not None
        patience_s = self.sock.gettimeout()
        assert patience_s is not None
        try:
            return self._reply(time.monotonic() + patience_s)
        finally:
            self.sock.settimeout(patience_s)

    def _reply(self, deadline_s: float) -> str:
        lines = [self._line(deadline_s, _MOST_REPLY_BYTES)]
        left_bytes = _MOST_REPLY_BYTES - len(lines[0])
        end = f"{lines[0][:3]} "
        while lines[0][3:4] == "-" and not f"{lines[-1]} ".startswith(end):
            lines.append(self._line(deadline_s, left_bytes))
            left_bytes -= len(lines[-1]) + 1
        reply = "\n".join(lines)
        if _MANY_DIGITS.search(reply):
            raise AnswerError(f"{self.host} gives an answer with a number that makes no sense")
        return reply

    def _line(self, deadline_s: float, most_bytes: int) -> str:
        assert self.sock is not None
        while b"\n" not in self._unread[: max(0, most_bytes)]:
            if len(self._unread) >= most_bytes:
                raise AnswerError(f"{self.host} gives an answer without an end; is that a server of Construir's?")
            self.sock.settimeout(max(0.001, deadline_s - time.monotonic()))
            piece = self.sock.recv(_READ_BYTES)
            if not piece:
                raise EOFError
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return line.rstrip(b"\r").decode(self.encoding, "replace")

    def demand_silence(self) -> None:
        """Raise AnswerError if more has come than was asked for: under TLS, words in clear would be taken for the
        server's (RFC 4217; CVE-2011-0411 is the kind).
        """
        if self._unread:
            raise AnswerError(f"{self.host} says more than it was asked, before TLS begins; something is on the way")

    def makepasv(self) -> tuple[str, int]:
        """Where the server waits for a data connection. Raises AnswerError where there can't be such a place."""
        try:
            host, port = super().makepasv()
        except ValueError as error:
            raise AnswerError(f"{self.host} names a place for data that makes no sense") from error
        if not 0 < port < 2**16:
            raise AnswerError(f"{self.host} names a port for data that there can't be")
        return host, port

    def size(self, filename: str) -> int | None:
        """A file's size in bytes (RFC 3659, 4). Raises ftplib.error_perm where there is none, AnswerError."""
        found = _SIZE.fullmatch(self.sendcmd(f"SIZE {filename}"))
        if found is None:
            raise AnswerError(f"{self.host} tells a size that makes no sense")
        return int(found[1])
