"""TLS that does not come about: what that means, and what a server is to be called by, or spoken to with, instead.

Nothing that is found out here is trusted with a password.
"""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from construir_ftp.client.address import Address
from construir_ftp.errors import ConfigError, one_line

# How OpenSSL calls an answer that is no TLS; the later one since 3.2.
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
# A certificate of another host name, or of another address (X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_...).
_OTHER_NAME = (62, 64)
_MOST_NAMES = 5


@contextmanager
def proving(address: Address) -> Iterator[None]:
    """Within, TLS begins. Raises ConfigError where it can't, with what to do."""
    try:
        yield
    except ssl.SSLCertVerificationError as unproved:
        remedy = "name its authority with --ca-file or CONSTRUIR_CAFILE"
        raise ConfigError(
            f"the certificate of {address} can't be proved ({unproved.verify_message}); {remedy}"
        ) from unproved
    except ssl.SSLError as other:
        if address.scheme != "ftps" or other.reason not in _NO_TLS:
            raise
        # What speaks FTP there says so in clear, before anything else.
        clear = f"ftp://{str(address).partition('://')[2]}"
        remedy = f"if it speaks FTP: {clear}, which uses TLS where it is offered"
        raise ConfigError(f"{address} speaks no TLS from the beginning; {remedy}") from other


def is_for_another_name(error: BaseException | None) -> bool:
    """Whether a certificate was refused for the name that it is for, and for nothing else."""
    return isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _OTHER_NAME


def names(sock: ssl.SSLSocket) -> list[str]:
    """What the certificate at the other end, which was proved, is for (RFC 5280, 4.2.1.6)."""
    told = (sock.getpeercert() or {}).get("subjectAltName", ())
    return [str(name) for kind, name in told if kind in ("DNS", "IP Address")]  # type: ignore[str-unpack]


def other_name(address: Address, names: list[str]) -> ConfigError:
    """That a certificate is for these names, and not for that of the server as it was named."""
    shown = ", ".join(names[:_MOST_NAMES]) + (", and more" if len(names) > _MOST_NAMES else "")
    its = f"it is for {one_line(shown)}, and not for {address.host}" if names else f"it is not for {address.host}"
    remedy = "name the server by a name that its certificate has"
    return ConfigError(f"the certificate of {address} can't be proved: {its}; {remedy}")


def demand_clear(address: Address, timeout_s: float) -> None:
    """Raises ConfigError if a server that does not greet speaks TLS, which has the client begin."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((address.host, address.port), timeout_s) as sock, context.wrap_socket(sock):
            implicit = msgspec.structs.replace(address, scheme="ftps")
    except OSError:  # as of whatever says nothing, or no TLS
        return
    raise ConfigError(f"{address} speaks TLS from the beginning; that is: {implicit}")
