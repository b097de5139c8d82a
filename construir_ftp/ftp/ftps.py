"""Which of a session's connections are protected by TLS (RFC 4217), by implicit FTPS too, and which have to be.

What a client says before the handshake is never taken for what it says after it, and a contributor's password is
refused before it is sent in clear, where the configuration says so. How TLS is spoken is for tls.
"""

from collections.abc import Callable
from typing import Any

from construir_ftp.config import TlsSection
from construir_ftp.ftp.certificate import Certificate
from construir_ftp.ftp.users import ANONYMOUS
from construir_ftp.jobs.reply import Reply

# SSL is what curl asks for first, and means the same. TLS-P would be TLS with PROT P, and nobody's any longer.
_MECHANISMS = ("TLS", "TLS-C", "SSL")


class Protection:
    """Of one session. `is_data_protected`: data connections are to speak TLS."""

    def __init__(self, session: Any, tls: TlsSection, certificate: Certificate | None) -> None:
        self._session, self._tls, self._certificate = session, tls, certificate
        self.is_data_protected = False
        self._has_pbsz = False

    def features(self) -> list[str]:
        """What FEAT tells of it."""
        return ["AUTH TLS", "PBSZ", "PROT"] if self._certificate else []

    def begin(self, is_implicit: bool, then: Callable[[], None]) -> None:
        """Call `then`; on the port for implicit FTPS TLS comes before the first word."""
        if not is_implicit:
            then()
            return
        # PBSZ 0 and PROT P are taken as said (MS-FTPS, 3.1.5.2); clients that say them all the same may.
        self._has_pbsz = self.is_data_protected = True
        self._speak_tls(then)

    def auth(self, mechanism: str) -> Reply | None:
        """Speak TLS after the reply; whoever was logged in is so no longer (RFC 2228, 3)."""
        session = self._session
        if not self._certificate:
            return Reply(502, "There is no TLS here.")
        if session.is_protected:
            return Reply(503, "TLS is spoken already.")
        if mechanism.upper() not in _MECHANISMS:
            return Reply(504, "Use AUTH TLS.")
        session.flush_account()
        session.say(Reply(234, "Begin with TLS."))
        session.forget_unread()
        if session.producer_fifo:
            # Replies have piled up unread: what TLS begins with would come in the middle of them.
            session.close()
        else:
            self._speak_tls(lambda: None)
        return None

    def pbsz(self) -> Reply:
        """Agree on a buffer for protected data; TLS needs none."""
        if not self._session.is_protected:
            return Reply(503, "Send AUTH TLS first.")
        self._has_pbsz = True
        return Reply(200, "PBSZ=0")

    def prot(self, level: str) -> Reply:
        """Protect the data connections to come, or don't; one that is open already is closed."""
        if not self._has_pbsz:
            return Reply(503, "Send PBSZ 0 first.")
        if level.upper() in ("S", "E"):
            return Reply(536, "TLS protects all or nothing: use PROT P or PROT C.")
        if level.upper() not in ("C", "P"):
            return Reply(504, "Use PROT P or PROT C.")
        self._session.close_data_connections()
        self.is_data_protected = level.upper() == "P"
        return Reply(200, "Data will be protected." if self.is_data_protected else "Data will go in clear.")

    # -- require_tls -------------------------------------------------------------------------------------------

    def refuse_user(self, username: str) -> Reply | None:
        """The reply to a user whose password may not be sent now; None if it may."""
        if self._needs_tls(username) and not self._session.is_protected:
            return Reply(530, "Contributors log in over TLS only; send AUTH TLS first.")
        return None

    def refuse_data_connection(self, username: str) -> Reply | None:
        """The reply to PASV, PORT and the like of a user whose data may not go in clear; None if it may."""
        if self._needs_tls(username) and not self.is_data_protected:
            return Reply(521, "Data connections are over TLS only; send PBSZ 0 and PROT P first.")
        return None

    def _needs_tls(self, username: str) -> bool:
        """Whether this server hears a user over TLS only. What anyone may read, anyone may read in clear."""
        return bool(self._tls.require_tls) and username.lower() not in ANONYMOUS

    def _speak_tls(self, then: Callable[[], None]) -> None:
        assert self._certificate is not None
        self._session.speak_tls(self._certificate.context(), then)
