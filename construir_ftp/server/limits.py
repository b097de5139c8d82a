"""How many sessions there may be: of everyone together, from one address, of one contributor.

What counts is sessions, whatever descriptors each of them has open. One address is an IPv4 address, or the 64 bits
of an IPv6 address that name a network (RFC 4291, section 2.5.1): whoever has one of its addresses has all of them.
"""

import ipaddress
from collections.abc import Iterable

from construir_ftp.config import FtpSection

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
