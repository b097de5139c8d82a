"""Whether what travels to the appliance is safe from others: its certificate, and passwords."""

import ipaddress
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from construir_ftp.appliance.finding import Finding
from construir_ftp.config import Config
from construir_ftp.errors import ConstruirError
from construir_ftp.ftp import certificate

_TIME_TO_RENEW = timedelta(days=21)
_RENEW = "renew it; the FTP server reads it again by itself"


def certificate_ends(config: Config) -> Iterator[Finding]:
    """How long the certificate is good for; nothing, without TLS."""
    pair = config.tls.files()
    if pair is None:
        return
    try:
        ends = certificate.expires(pair[0])
    except ConstruirError:
        return  # it can't be used at all, which is said above
    now = datetime.now(UTC)
    text = f"{pair[0]}, until {ends:%Y-%m-%d}"
    if ends < now:
        yield Finding("certificate", "problem", f"{text}: expired", _RENEW)
    elif ends < now + _TIME_TO_RENEW:
        yield Finding("certificate", "warning", f"{text}: {(ends - now).days} days left", _RENEW)
    else:
        yield Finding("certificate", "ok", text)


def passwords(config: Config) -> Iterator[Finding]:
    """Whether they can be read on their way."""
    public = [address for address in _addresses(config) if _is_public(address)]
    if config.tls.require_tls:
        yield Finding("passwords", "ok", "over TLS only")
    elif public:
        text = f"they can travel in clear, and the FTP server listens on {public[0]}"
        remedy = "set tls.require_tls = true" + ("" if config.tls.certificate else ", tls.certificate and tls.key")
        yield Finding("passwords", "warning", text, remedy)
    else:
        yield Finding("passwords", "ok", f"can travel in clear, but not past {config.ftp.address}")


def _addresses(config: Config) -> list[str]:
    """What the FTP server can be reached by, in numbers; what can't be resolved can't be listened on either."""
    found = [config.ftp.masquerade_address] if config.ftp.masquerade_address else []
    try:
        infos = socket.getaddrinfo(config.ftp.address, None, type=socket.SOCK_STREAM)
    except OSError:
        return found
    return [*found, *(str(info[4][0]) for info in infos)]


def _is_public(address: str) -> bool:
    """Whether others than neighbours can listen; an unspecified address (0.0.0.0, ::) stands for all there are."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return ip.is_unspecified or not (ip.is_private or ip.is_loopback or ip.is_link_local)
