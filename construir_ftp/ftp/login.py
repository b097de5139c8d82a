"""Who a session is: anyone, or a contributor who has said the right password, which is checked beside the event loop.

What they may then see and do is no concern of this module: see session.
"""

import ipaddress
import logging
import math
import socket
from collections.abc import Iterable
from typing import Any

from construir_ftp.config import FtpSection
from construir_ftp.ftp.ftps import ProtectedConnection
from construir_ftp.ftp.passwords import Attempt
from construir_ftp.ftp.users import ANONYMOUS

log = logging.getLogger("construir.ftp")


class IdentifiedConnection(ProtectedConnection):
    """A control connection that knows its contributor; None is anyone, or nobody yet."""

    max_login_attempts = 3

    def __init__(self, conn: socket.socket, server: Any, ioloop: Any = None) -> None:
        self.contributor: str | None = None
        self._login_deadline: Any = None
        self._attempt: Attempt | None = None
        super().__init__(conn, server, ioloop)
        self.network = network(self.remote_ip) if self.remote_ip else ""
        self._await_login()

    @property
    def who(self) -> str:
        """How the log calls this session."""
        return f"{self.contributor or 'anonymous'}@{self.remote_ip}"

    def close(self) -> None:
        """Close the connection."""
        super().close()
        self._stop_waiting_for_login()
        if self._attempt is not None:
            self.server.passwords.drop(self._attempt)

    def _await_login(self) -> None:
        """Begin to wait for somebody to log in; whatever else the connection does meanwhile gives it no more time."""
        self._stop_waiting_for_login()
        if not self._closed:
            self._login_deadline = self.ioloop.call_later(
                self.server.ftp.login_timeout, self._give_up_waiting, _errback=self.handle_error
            )

    def _stop_waiting_for_login(self) -> None:
        if self._login_deadline is not None and not self._login_deadline.cancelled:
            self._login_deadline.cancel()

    def _give_up_waiting(self) -> None:
        if self._closing:
            return
        log.info("%s: not logged in after %g s", self.remote_ip, self.server.ftp.login_timeout)
        self._dismiss(f"421 Nobody has logged in for {self.server.ftp.login_timeout:g} s.")

    def _dismiss(self, reply: str) -> None:
        """Say so, and close the connection."""
        if self.is_held:
            self.resume()
        self.respond(reply)
        self.close_when_done()

    def ftp_PASS(self, line: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Let anyone in as anonymous, a contributor with the right password."""
        if self.authenticated or not self.username:
            super().ftp_PASS(line)
        elif self.username.lower() in ANONYMOUS:
            self._welcome(None)
        else:
            self._check(self.username, line)

    def _check(self, name: str, password: str) -> None:
        wait_s = self.server.passwords.wait_s(self.network, name)
        if wait_s > self.server.ftp.login_timeout:
            log.warning("%s: guesses at %a: turned away for %.0f s", self.remote_ip, name, wait_s)
            self._dismiss(f"421 Too many wrong passwords from your address; try again in {math.ceil(wait_s)} s.")
        else:
            self.hold()
            self._attempt = Attempt(self.network, name, password, lambda is_right: self._judged(name, is_right))
            self.server.passwords.check(self._attempt)

    def _judged(self, name: str, is_right: bool) -> None:
        self._attempt = None
        if self._closed or self._closing:
            return
        if not is_right:
            self._turn_away(name)
        elif refusal := self.server.refuse_login(name):
            log.warning("%s: %s: %s", self.remote_ip, name, refusal)
            self._dismiss(refusal)
        else:
            self.resume()
            self._welcome(name)

    def _turn_away(self, name: str) -> None:
        log.warning("%s: wrong name or password for %a", self.who, name)
        self.resume()
        self.username = ""
        self.attempted_logins += 1
        self.respond("530 Wrong name or password.")
        if self.attempted_logins >= self.max_login_attempts:
            self.close_when_done()

    def _welcome(self, contributor: str | None) -> None:
        self.contributor, self.authenticated, self.attempted_logins = contributor, True, 0
        self._stop_waiting_for_login()
        log.log(logging.INFO if contributor else logging.DEBUG, "%s: logged in", self.who)
        self.on_welcome()
        self.respond("230 Jobs go into /queue, results are in /done." if contributor else "230 Results are in /done.")

    def on_welcome(self) -> None:
        """Called before the reply that lets somebody in."""

    def flush_account(self) -> None:
        """Called by USER and REIN: nobody is logged in any longer."""
        super().flush_account()
        self.contributor = None
        self._await_login()


# -- limits ------------------------------------------------------------------------------------------------------

# How many sessions there may be: of everyone together, from one address, of one contributor.
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


def refuse_connection(newcomer: str, networks: Iterable[str], ftp: FtpSection) -> str:
    """The reply to a connection from the network `newcomer`, when there are sessions from `networks`; "" is welcome."""
    present = list(networks)
    if len(present) >= ftp.max_sessions:
        return f"421 All {ftp.max_sessions} sessions of this server are taken; try again later."
    if present.count(newcomer) >= ftp.max_sessions_per_address:
        return f"421 {ftp.max_sessions_per_address} sessions is the most from one address; end one, and try again."
    return ""


def refuse_login(newcomer: str, contributors: Iterable[str | None], ftp: FtpSection) -> str:
    """The reply to a contributor's right password, when there are sessions of `contributors`; "" is welcome."""
    if list(contributors).count(newcomer) >= ftp.max_sessions_per_contributor:
        return f"421 You have {ftp.max_sessions_per_contributor} sessions, the most allowed; end one, and try again."
    return ""
