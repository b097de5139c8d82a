"""Who a session is: anyone, or a contributor who has said the right password, which is checked beside the event loop.

Here too is how many sessions there may be. What those who are let in may see and do is no concern of this module.
"""

import ipaddress
import logging
import math
from collections.abc import Iterable
from typing import Any

from construir_ftp.config import FtpSection
from construir_ftp.ftp.passwords import Guess
from construir_ftp.ftp.users import ANONYMOUS
from construir_ftp.jobs.reply import Reply

log = logging.getLogger("construir.ftp")

_MOST_ATTEMPTS = 3


class Login:
    """Of one session; `contributor` is None for anyone, and for nobody yet."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.contributor: str | None = None
        self._deadline: Any = None
        self._guess: Guess | None = None

    def wait(self) -> None:
        """Begin to wait for somebody to log in; whatever else the connection does meanwhile gives it no more time."""
        self._stop_waiting()
        session = self._session
        if not session._closed:
            self._deadline = session.ioloop.call_later(
                session.server.ftp.login_timeout, self._give_up, _errback=session.handle_error
            )

    def close(self) -> None:
        """The session is closed."""
        self._stop_waiting()
        if self._guess is not None:
            self._session.server.passwords.drop(self._guess)

    def forget(self) -> None:
        """Nobody is logged in any longer."""
        self.contributor = None
        self.wait()

    def _stop_waiting(self) -> None:
        if self._deadline is not None and not self._deadline.cancelled:
            self._deadline.cancel()

    def _give_up(self) -> None:
        session = self._session
        if session._closing:
            return
        session.tell("not logged in", "not logged in after %g s", session.server.ftp.login_timeout)
        session.dismiss(Reply(421, f"Nobody has logged in for {session.server.ftp.login_timeout:g} s."))

    def try_password(self, name: str, password: str) -> Reply | None:
        """Let anyone in as anonymous, a contributor with the right password; the reply, unless it comes later."""
        if name.lower() in ANONYMOUS:
            return self._let_in(None)
        session = self._session
        wait_s = session.server.passwords.wait_s(session.network, name)
        if wait_s > session.server.ftp.login_timeout:
            text = "guesses at %a: turned away for %.0f s"
            session.tell("guesses turned away", text, name, wait_s, level=logging.WARNING)
            wait = f"try again in {math.ceil(wait_s)} s."
            session.dismiss(Reply(421, f"Too many wrong passwords from your address; {wait}"))
        else:
            session.hold()
            self._guess = Guess(session.network, name, password, lambda is_right: self._judged(name, is_right))
            session.server.passwords.check(self._guess)
        return None

    def _judged(self, name: str, is_right: bool) -> None:
        self._guess = None
        session = self._session
        if session._closed or session._closing:
            return
        if not is_right:
            self._turn_away(name)
        elif refusal := session.server.refuse_login(name):
            session.tell("logins refused", "%s: %s", name, refusal, level=logging.WARNING)
            session.dismiss(refusal)
        else:
            session.resume()
            session.say(self._let_in(name))

    def _turn_away(self, name: str) -> None:
        session = self._session
        text = "wrong name or password for %a"
        session.tell("wrong name or password", text, name, level=logging.WARNING)
        session.resume()
        session.username = ""
        session.attempted_logins += 1
        session.say(Reply(530, "Wrong name or password."))
        if session.attempted_logins >= _MOST_ATTEMPTS:
            session.close_when_done()

    def _let_in(self, contributor: str | None) -> Reply:
        session = self._session
        self.contributor, session.authenticated, session.attempted_logins = contributor, True, 0
        self._stop_waiting()
        log.log(logging.INFO if contributor else logging.DEBUG, "%s: logged in", session.who)
        session.welcome()
        where = "Jobs go into /queue, results are in /done." if contributor else "Results are in /done."
        return Reply(230, where)


# -- limits ------------------------------------------------------------------------------------------------------

# What counts is sessions, whatever descriptors each of them has open. One address is an IPv4 address, or the 64 bits
# of an IPv6 address that name a network (RFC 4291, section 2.5.1): whoever has one of its addresses has all of them.
_IPV6_NETWORK_BITS = 64


def network(address: str) -> str:
    """What counts as one address: "192.0.2.7", also for "::ffff:192.0.2.7"; "2001:db8::/64" for "2001:db8::7"."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            return str(ipaddress.ip_network((int(ip), _IPV6_NETWORK_BITS), strict=False))
        ip = ip.ipv4_mapped
    return str(ip)


def refuse_connection(newcomer: str, networks: Iterable[str], ftp: FtpSection) -> Reply | None:
    """The reply to a connection from the network `newcomer`, when there are sessions from `networks`; None: welcome."""
    present = list(networks)
    if len(present) >= ftp.max_sessions:
        return Reply(421, f"All {ftp.max_sessions} sessions of this server are taken; try again later.")
    if present.count(newcomer) >= ftp.max_sessions_per_address:
        most = ftp.max_sessions_per_address
        return Reply(421, f"{most} sessions is the most from one address; end one, and try again.")
    return None


def refuse_login(newcomer: str, contributors: Iterable[str | None], ftp: FtpSection) -> Reply | None:
    """The reply to a contributor's right password, when there are sessions of `contributors`; None: welcome."""
    if list(contributors).count(newcomer) >= ftp.max_sessions_per_contributor:
        most = ftp.max_sessions_per_contributor
        return Reply(421, f"You have {most} sessions, the most allowed; end one, and try again.")
    return None
