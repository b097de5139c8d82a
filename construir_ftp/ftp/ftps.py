"""Which of a session's connections are protected by TLS: AUTH, PBSZ and PROT (RFC 4217), implicit FTPS, require_tls.

What a client says before the handshake is never taken for what it says after it, and a contributor's password is
refused before it is sent in clear, where the configuration says so. How TLS is spoken is tls's concern.
"""

import logging
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from construir_ftp.ftp.control import ControlConnection
from construir_ftp.ftp.tls import why
from construir_ftp.ftp.users import ANONYMOUS

log = logging.getLogger("construir.ftp")

# As pyftpdlib's table of commands has them.
COMMANDS: dict[str, dict[str, Any]] = {
    "AUTH": {"perm": None, "auth": False, "arg": True, "help": "Syntax: AUTH <SP> TLS (protect this connection)."},
    "PBSZ": {"perm": None, "auth": False, "arg": True, "help": "Syntax: PBSZ <SP> 0 (comes before PROT)."},
    "PROT": {"perm": None, "auth": False, "arg": True, "help": "Syntax: PROT <SP> C|P (data in clear, or protected)."},
}

# SSL is what curl asks for first, and means the same. TLS-P would be TLS with PROT P, and nobody's any longer.
_MECHANISMS = ("TLS", "TLS-C", "SSL")


class ProtectedConnection(ControlConnection):
    """A control connection that can begin to speak TLS, and knows whether data connections are to."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.tls_context: ssl.SSLContext | None = None
        self.is_data_protected = False
        self._has_pbsz = False
        super().__init__(*args, **kwargs)
        self._extra_feats = ["AUTH TLS", "PBSZ", "PROT"] if self.server.certificate else []

    def handle(self) -> None:
        """Called when the connection is accepted; on the port for implicit FTPS TLS comes before the first word."""
        if self.socket.getsockname()[1] == self.server.implicit_port:
            # PBSZ 0 and PROT P are taken as said (MS-FTPS, 3.1.5.2); clients that say them all the same may.
            self._has_pbsz = self.is_data_protected = True
            self._speak_tls(super().handle)
        else:
            super().handle()

    # -- commands --------------------------------------------------------------------------------------------

    def ftp_AUTH(self, mechanism: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Speak TLS after the reply; whoever was logged in is so no longer (RFC 2228, 3)."""
        if not self.server.certificate:
            self.respond("502 There is no TLS here.")
        elif self.is_protected:
            self.respond("503 TLS is spoken already.")
        elif mechanism.upper() not in _MECHANISMS:
            self.respond("504 Use AUTH TLS.")
        else:
            self.flush_account()
            self.respond("234 Begin with TLS.")
            self.forget_unread()
            if self.producer_fifo:
                # Replies have piled up unread: what TLS begins with would come in the middle of them.
                self.close()
            else:
                self._speak_tls(lambda: None)

    def ftp_PBSZ(self, size: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Agree on a buffer for protected data; TLS needs none."""
        if not self.is_protected:
            self.respond("503 Send AUTH TLS first.")
        else:
            self._has_pbsz = True
            self.respond("200 PBSZ=0")

    def ftp_PROT(self, level: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Protect the data connections to come, or don't; one that is open already is closed."""
        if not self._has_pbsz:
            self.respond("503 Send PBSZ 0 first.")
        elif level.upper() in ("C", "P"):
            self._shutdown_connecting_dtp()
            self.drop_data_channel()
            self.is_data_protected = level.upper() == "P"
            self.respond("200 Data will be protected." if self.is_data_protected else "200 Data will go in clear.")
        elif level.upper() in ("S", "E"):
            self.respond("536 TLS protects all or nothing: use PROT P or PROT C.")
        else:
            self.respond("504 Use PROT P or PROT C.")

    def ftp_REIN(self, line: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Begin anew. With TLS that would mean to go on in clear (RFC 4217, 11), which nobody needs."""
        if self.is_protected:
            self.respond("502 Connect again instead.")
        else:
            super().ftp_REIN(line)

    # -- require_tls -----------------------------------------------------------------------------------------

    def _needs_tls(self, username: str) -> bool:
        """Whether this server hears a user over TLS only. What anyone may read, anyone may read in clear."""
        return bool(self.server.tls.require_tls) and username.lower() not in ANONYMOUS

    def ftp_USER(self, username: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Ask for the password, where it may be sent."""
        if self._needs_tls(username) and not self.is_protected:
            self.respond("530 Contributors log in over TLS only; send AUTH TLS first.")
        else:
            super().ftp_USER(username)

    def _make_epasv(self, extmode: bool = False) -> None:
        if self._may_open_data_connection():
            super()._make_epasv(extmode)

    def _make_eport(self, ip: str, port: int) -> None:
        if self._may_open_data_connection():
            super()._make_eport(ip, port)

    def _may_open_data_connection(self) -> bool:
        if self._needs_tls(self.username) and not self.is_data_protected:
            self.respond("521 Data connections are over TLS only; send PBSZ 0 and PROT P first.")
            return False
        return True

    # -- TLS ---------------------------------------------------------------------------------------------------

    def _speak_tls(self, then: Callable[[], None]) -> None:
        self.tls_context = self.server.certificate.context()
        self.protect(self.tls_context, self.timeout, then, with_tickets=True)

    def on_tls_failed(self, error: OSError) -> None:
        """Called when there was no handshake: there is nobody left to speak to."""
        log.info("%s: no TLS: %s", self.who, why(error))
        self.close()

    def push(self, data: str) -> None:
        """Called with what is to be replied; during the handshake nobody could read it."""
        if not self.is_shaking_hands:
            super().push(data)

    def close_when_done(self) -> None:
        """Close the connection when all is sent; during the handshake nothing is."""
        if self.is_shaking_hands:
            self.close()
        else:
            super().close_when_done()

    def close(self) -> None:
        """Close the connection, with a close_notify if there is room for one."""
        if self.is_protected and not self._closed:
            with suppress(OSError, ValueError):
                self.say_goodbye()
        super().close()
