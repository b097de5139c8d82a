"""The ports that the FTP server listens on, and those of its data connections.

As configured, or an error that says what is wrong with them.
"""

import ipaddress
import re
import socket

from construir_ftp.config import FtpSection, TlsSection
from construir_ftp.errors import ConfigError, ConstruirError
from construir_ftp.ftp.ioloop import keep_alive

# Connections that wait to be accepted. Of more than there may be, the kernel drops the last packet of the handshake:
# the client takes itself for connected, and waits for a greeting, perhaps for ever.
BACKLOG = 1024
# What the kernel keeps of a control connection that is not read; by itself that grows to 6 MB (tcp(7): tcp_rmem).
CONTROL_BUFFER_BYTES = 1 << 15
# What chooses the port.
PORT = "ftp.port or --port"


def passive_ports(text: str) -> list[int] | None:
    """ "60000-60100" -> the ports; "" -> None, any. Raises ConfigError."""
    if not text:
        return None
    match = re.fullmatch(r"\s*(\d{1,5})\s*-\s*(\d{1,5})\s*", text, re.ASCII)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 0 < first <= last <= 65535:
        raise ConfigError(f'ftp.passive_ports: expected a range of ports such as "60000-60100", got {text!a}')
    return list(range(first, last + 1))


def check_masquerade_address(text: str) -> None:
    """Raises ConfigError where PASV can't say it."""
    # It goes into the reply to PASV, which has room for an IPv4 address only (RFC 959); EPSV needs none.
    try:
        if text:
            ipaddress.IPv4Address(text)
    except ValueError as error:
        raise ConfigError(f"ftp.masquerade_address: expected an IPv4 address, got {text!a}") from error


def bind(address: str, port: int, chosen_by: str) -> socket.socket:
    """Listen on a port, which the option or key `chosen_by` names. Raises ConstruirError."""
    is_v6 = ":" in address
    try:
        sock = socket.create_server(
            (address, port),
            family=socket.AF_INET6 if is_v6 else socket.AF_INET,
            backlog=BACKLOG,
            dualstack_ipv6=address == "::",
        )
    except OSError as error:
        remedy = f"choose others with ftp.address and {chosen_by}"
        raise ConstruirError(f"FTP can't listen on {address} port {port}: {error.strerror}; {remedy}") from error
    # What it accepts inherits it.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CONTROL_BUFFER_BYTES)
    keep_alive(sock)
    return sock


def wanted(ftp: FtpSection, tls: TlsSection) -> dict[int, str]:
    """The ports that the server would listen on, and what has chosen each."""
    return {**({tls.implicit_port: "tls.implicit_port"} if tls.implicit else {}), ftp.port: PORT}


def check_free(address: str, wanted: dict[int, str]) -> None:
    """Listen for a moment on each. Raises ConstruirError."""
    for port, chosen_by in wanted.items():
        bind(address, port, chosen_by).close()
