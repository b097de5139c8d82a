"""The commands of who a session is, and how it is protected: USER, PASS, REIN; AUTH, PBSZ, PROT (RFC 4217)."""

from construir_ftp.ftp.session import Session
from construir_ftp.jobs.reply import Reply


def user(session: Session, name: str) -> Reply | None:
    """Ask for the password, where it may be sent."""
    refusal = session.protection.refuse_user(name)
    if refusal is None:
        session.ftp_USER(name)
    return refusal


def password(session: Session, word: str) -> Reply | None:
    """Let anyone in as anonymous, a contributor with the right password."""
    if session.authenticated or not session.username:
        session.ftp_PASS(word)
        return None
    return session.login.try_password(session.username, word)


def rein(session: Session, line: str) -> Reply | None:
    """Begin anew. With TLS that would mean to go on in clear (RFC 4217, 11), which nobody needs."""
    if session.is_protected:
        return Reply(502, "Connect again instead.")
    session.ftp_REIN(line)
    return None


def auth(session: Session, mechanism: str) -> Reply | None:
    """Speak TLS from now on."""
    return session.protection.auth(mechanism)


def pbsz(session: Session, _size: str) -> Reply | None:
    """Agree on a buffer for protected data."""
    return session.protection.pbsz()


def prot(session: Session, level: str) -> Reply | None:
    """Protect the data connections to come, or don't."""
    return session.protection.prot(level)
