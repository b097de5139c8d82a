"""A session with a server: plain FTP, or TLS with the server's certificate proved; and what its failures mean.

With `ftp` TLS is used wherever the server offers it (RFC 4217), unless it is forbidden. A certificate that can't be
proved is never put up with: the password would be anyone's.
"""

import ftplib
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from construir_ftp.client import handshake
from construir_ftp.client.address import ANONYMOUS, Address, Credentials
from construir_ftp.client.control_connection import BoundedFTP
from construir_ftp.errors import (
    AnswerError,
    ConfigError,
    ConstruirError,
    LoginError,
    TryLaterError,
    UnreachableError,
    one_line,
)

Tls = Literal["auto", "required", "never"]

# Until a server that says nothing, or no whole reply, is taken for dead; it answers everything but an upload at once.
TIMEOUT_S = 60.0

# Of what a server says, a message quotes so much.
_SAID_CHARACTERS = 500

# How servers say that they take a login over TLS only: with codes for everything, and in words that have one of these.
_WANTS_TLS = re.compile(r"\b(TLS|SSL|encryption)\b", re.IGNORECASE)
# A server greets at once; one that has not by then may wait for a client that speaks TLS.
_SILENCE_S = 5.0

# What a connection that is gone looks like, at whichever end it went. A server that stops says 421, one that lost the
# data connection 425 or 426.
LOST = (OSError, EOFError, ftplib.error_temp, ftplib.error_proto)


class Remote(msgspec.Struct, frozen=True):
    """A server as somebody sees it: whoever isn't said to be a contributor is anonymous."""

    address: Address
    login: Credentials = ANONYMOUS
    tls: Tls = "auto"
    ca_file: Path | None = None
    timeout_s: float = TIMEOUT_S

    def open(self) -> ftplib.FTP:
        """A session in binary mode; the caller closes it. Raises ConstruirError, and what LOST names."""
        ftp = self._connect()
        try:
            self._log_in(ftp)
        except BaseException:
            ftp.close()
            raise
        return ftp

    @contextmanager
    def session(self) -> Iterator[ftplib.FTP]:
        """The same, closed at the end of the block."""
        ftp = self.open()
        try:
            yield ftp
            with suppress(*ftplib.all_errors):
                ftp.quit()
        finally:
            ftp.close()

    def _connect(self) -> ftplib.FTP:
        """A connection whose greeting is read, under TLS if it has to be."""
        if self.tls == "never" and self.address.scheme != "ftps":
            return self._begun(BoundedFTP(timeout=self.timeout_s))
        try:
            return self._secured(self._context())
        except ConfigError as refused:
            if handshake.is_for_another_name(refused.__cause__):
                raise handshake.other_name(self.address, self._names()) from refused
            raise

    def _names(self) -> list[str]:
        """What a certificate is for that is proved but for the name; nobody logs in."""
        context = self._context()
        context.check_hostname = False
        try:
            with self._secured(context) as ftp:
                return handshake.names(ftp.sock) if isinstance(ftp.sock, ssl.SSLSocket) else []
        except (ConstruirError, *LOST):
            return []

    def _secured(self, context: ssl.SSLContext) -> ftplib.FTP:
        address = self.address
        if address.scheme == "ftps":
            return self._begun(_Protected(context, self.timeout_s, is_implicit=True))
        is_required = self.tls == "required" or address.scheme == "ftpes"
        ftp = _Protected(context, self.timeout_s)
        self._begun(ftp)
        try:
            if is_required or _offers_tls(ftp):
                _protect(ftp, address)
        except BaseException:
            ftp.close()
            raise
        return ftp

    def _begun(self, ftp: BoundedFTP) -> ftplib.FTP:
        silence_s = min(_SILENCE_S, self.timeout_s / 2)
        if self.address.scheme != "ftps":
            ftp.when_silent = silence_s, lambda: handshake.demand_clear(self.address, silence_s)
        try:
            with handshake.proving(self.address):
                ftp.connect(self.address.host, self.address.port)
        except BaseException:
            ftp.close()
            raise
        return ftp

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise ConfigError(f"{self.ca_file}: not a file of certificates ({error.strerror or error})") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def _log_in(self, ftp: ftplib.FTP) -> None:
        try:
            ftp.sendcmd(f"USER {self.login.user}")
            # Python's login() says PASS in an exception's text, if its first reply isn't the expected one.
            ftp.sendcmd(f"PASS {self.login.password}")
        except ftplib.error_perm as refused:
            if self.tls == "never" and _WANTS_TLS.search(said(refused)):
                never = "which --tls or CONSTRUIR_TLS says never to use; to use it: --tls auto"
                raise LoginError(f"{self.address} takes logins over TLS only, {never}") from refused
            raise LoginError(f"{self.address} refuses the login of {self.login.user}: {said(refused)}") from refused
        if isinstance(ftp, _Protected) and isinstance(ftp.sock, ssl.SSLSocket):
            ftp.prot_p()
        ftp.voidcmd("TYPE I")


class _Protected(BoundedFTP, ftplib.FTP_TLS):
    """FTP that can go over to TLS, or begin with it; data connections resume the TLS session of the control connection,
    as some servers want it.
    """

    def __init__(self, context: ssl.SSLContext, timeout_s: float, *, is_implicit: bool = False) -> None:
        super().__init__(context=context, timeout=timeout_s)
        self._is_implicit = is_implicit

    def getresp(self) -> str:
        # connect() calls this for the greeting, which implicit FTPS sends under TLS already.
        if self._is_implicit and self.sock is not None and not isinstance(self.sock, ssl.SSLSocket):
            self._go_under_tls()
        return super().getresp()

    def auth(self) -> str:
        """Go over to TLS (RFC 4217, 4). Raises ftplib.error_perm, AnswerError, ssl.SSLError."""
        reply = self.voidcmd("AUTH TLS")
        self.demand_silence()
        self._go_under_tls()
        return reply

    def _go_under_tls(self) -> None:
        assert self.sock is not None
        if self.file is not None:
            self.file.close()
        self.sock = self.context.wrap_socket(self.sock, server_hostname=self.host)
        self.file = self.sock.makefile(mode="r", encoding=self.encoding)

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[Any, int | None]:
        data, size_bytes = ftplib.FTP.ntransfercmd(self, cmd, rest)
        if isinstance(self.sock, ssl.SSLSocket):
            data = self.context.wrap_socket(data, server_hostname=self.host, session=self.sock.session)
        return data, size_bytes


def _offers_tls(ftp: ftplib.FTP) -> bool:
    try:
        return bool(re.search(r"^ AUTH TLS", ftp.sendcmd("FEAT"), re.MULTILINE | re.IGNORECASE))
    except ftplib.error_perm:
        return False


def _protect(ftp: "_Protected", address: Address) -> None:
    try:
        with handshake.proving(address):
            ftp.auth()
    except ftplib.error_perm as refused:
        raise ConfigError(
            f"{address} speaks no TLS ({said(refused)}); to speak to it in clear: {address.in_clear()} --tls never"
        ) from refused


# -- what failures mean --------------------------------------------------------------------------------------


def said(reply: object) -> str:
    """A reply of the server's as part of a message: its last line, without the code, and no more than fits into one."""
    lines = str(reply).rstrip().splitlines() or [""]
    return one_line(re.sub(r"^[0-9]{3}[ -]?", "", lines[-1]))[:_SAID_CHARACTERS]


def code(reply: object) -> int:
    """A reply's three digits; 0 where there are none."""
    digits = str(reply)[:3]
    return int(digits) if re.fullmatch("[0-9]{3}", digits) else 0


def meaning(error: Exception, address: Address) -> ConstruirError:
    """What an exception of a session means to a person."""
    if isinstance(error, ftplib.error_temp):
        return TryLaterError(f"{address} can't do it now: {said(error)}; try again later")
    if isinstance(error, ftplib.error_perm | ftplib.error_reply | ftplib.error_proto):
        return AnswerError(f"{address} answers: {said(error) or 'nothing that makes sense'}")
    why = (error.strerror if isinstance(error, OSError) else "") or str(error) or "the connection was closed"
    if isinstance(error, socket.gaierror):
        why = f"no such host ({why})"
    return UnreachableError(f"{address} can't be reached: {one_line(why)}; is the address right, does it run?")


@contextmanager
def plainly(address: Address) -> Iterator[None]:
    """Failures of the session within raise a ConstruirError that says what is wrong.

    Around nothing but the session: an OSError of a file would be taken for the server's.
    """
    try:
        yield
    except (ftplib.Error, OSError, EOFError, UnicodeDecodeError) as error:
        raise meaning(error, address) from error


# -- patience ----------------------------------------------------------------------------------------------------

# How long to go on trying when a connection was lost: with growing pauses, from the moment of the last success.


_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0


class Patience:
    """Of one errand. A server that was never reached is not waited for."""

    def __init__(self, total_s: float, told: Callable[[str], None], first_pause_s: float = _FIRST_PAUSE_S) -> None:
        self._total_s, self._told, self._first_pause_s = total_s, told, first_pause_s
        self._pause_s = first_pause_s
        self._lost_s: float | None = None
        self._has_begun = False

    def begin(self) -> None:
        """There is a server that lets us in."""
        self._has_begun = True

    def succeed(self) -> None:
        """Something has come or gone that hadn't before."""
        self._has_begun, self._lost_s, self._pause_s = True, None, self._first_pause_s

    def wait(self, lost: Exception, address: Address) -> None:
        """Pause before the next try, or raise what `lost` means (UnreachableError, TryLaterError, AnswerError)."""
        now_s = time.monotonic()
        self._lost_s = now_s if self._lost_s is None else self._lost_s
        why = meaning(lost, address)
        if not self._has_begun or now_s + self._pause_s > self._lost_s + self._total_s:
            raise why from lost
        if isinstance(why, UnreachableError | TryLaterError):
            self._told(f"the connection was lost, trying again in {self._pause_s:g} s ({why})")
        time.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
