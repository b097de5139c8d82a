"""The commands of connections: PASV and EPSV, TYPE, STAT, ABOR, NOOP, QUIT. PORT and EPRT are pyftpdlib's own."""

from construir_ftp.ftp.commands import listing
from construir_ftp.ftp.session import Session
from construir_ftp.jobs.reply import Reply


def pasv(session: Session, line: str) -> Reply | None:
    """Wait for a data connection; the reply has room for an IPv4 address only."""
    if ":" in session.client_address():
        return Reply(522, "PASV is for IPv4; use EPSV.")
    session.ftp_PASV(line)
    return None


def epsv(session: Session, line: str) -> Reply | None:
    """Wait for a data connection; it can't come by another protocol than this one did (RFC 2428, 3)."""
    own = "2" if ":" in session.client_address() else "1"
    if line in ("1", "2") and line != own:
        return Reply(522, f"Network protocol not supported, use ({own}).")
    session.ftp_EPSV("" if line == own else line)
    return None


def type_(session: Session, line: str) -> Reply | None:
    """Set how data is sent. "A N", with the format that ASCII has by default, means A (RFC 959, 5.1)."""
    session.ftp_TYPE("A" if line.upper().split() == ["A", "N"] else line)
    return None


def stat_(session: Session, line: str) -> Reply:
    """Say how the session is, but not where the server is; of a path what LIST would say."""
    if not session.authenticated:
        return Reply(530, "Log in with USER and PASS first.")
    return listing.at_once(session, line) if line else Reply(211, "End of status.", ("Status", *_status(session)))


def _status(session: Session) -> list[str]:
    kind = "ASCII" if session._current_type == "a" else "Binary"
    channel = session.data_channel
    data = (
        [
            "Data connection open:",
            f"Total bytes sent: {channel.tot_bytes_sent}",
            f"Total bytes received: {channel.tot_bytes_received}",
        ]
        if channel is not None
        else ["Data connection closed."]
    )
    return [f"Logged in as: {session.username}", f"TYPE: {kind}; STRUcture: File; MODE: Stream", *data]


def abor(session: Session, line: str) -> Reply | None:
    """Break off the transfer under way."""
    if session.is_transferring():
        session.abort()
        return None
    if session.is_connecting():
        # The reply that PORT or EPRT is still waiting for; pyftpdlib forgets it.
        session.say(Reply(425, "Not connected: aborted."))
    session.ftp_ABOR(line)
    return None


def noop(_session: Session, _line: str) -> Reply | None:
    """Do nothing, so that nobody takes the connection for idle."""
    return Reply(200, "Nothing is done.")


def quit_(session: Session, line: str) -> Reply | None:
    """Say goodbye; nothing is under way, since QUIT would have waited for its end."""
    session.drop_data_channel()
    session.ftp_QUIT(line)
    return None
