"""Where a server is, and by which scheme it is spoken to: ftp, ftpes (TLS by AUTH TLS), ftps (TLS from the beginning).

Never a password: those are in ~/.netrc, or typed.
"""

from urllib.parse import unquote, urlsplit

import msgspec

from construir_ftp.errors import ConfigError, one_line

_PORTS = {"ftp": 21, "ftpes": 21, "ftps": 990}
_PATHS = ("", "/", "/queue", "/queue/")


class Address(msgspec.Struct, frozen=True):
    """A server, and who speaks to it, if that is said."""

    scheme: str
    host: str
    port: int
    user: str = ""

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port != _PORTS[self.scheme] else ""
        return f"{self.scheme}://{user}{host}{port}"


def parse(text: str) -> Address:
    """Read `ftp://alice@build.example.org:2121`, or a part of it. Raises ConfigError."""
    try:
        parts = urlsplit(text if "://" in text else f"ftp://{text}")
        port = parts.port
    except ValueError as error:
        raise _unusable(text, str(error)) from error
    if parts.password is not None:
        raise ConfigError("a password has no place in an address, where others see it; put it into ~/.netrc")
    if parts.scheme not in _PORTS:
        raise _unusable(text, f"its scheme is none of {', '.join(_PORTS)}")
    is_plain = parts.path in _PATHS and not parts.query and not parts.fragment and text.isprintable()
    if not parts.hostname or not is_plain or " " in text:
        raise _unusable(text, "expected something like ftp://alice@build.example.org:2121")
    return Address(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], unquote(parts.username or ""))


def _unusable(text: str, why: str) -> ConfigError:
    return ConfigError(f"the server's address {one_line(text)!r} can't be used: {one_line(why)}")
