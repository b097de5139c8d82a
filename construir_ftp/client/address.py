"""Where a server is, and by which scheme it is spoken to: ftp, ftpes (TLS by AUTH TLS), ftps (TLS from the beginning).

Never a password: those are in ~/.netrc, or typed.
"""

import netrc
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from construir_ftp import home
from construir_ftp.errors import ConfigError, LoginError, one_line

_PORTS = {"ftp": 21, "ftpes": 21, "ftps": 990}
# What in a password is read as something else in ~/.netrc, without quotes.
ODD = "blanks, quotes, backslashes or #"
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

    def in_clear(self) -> str:
        """The same server without TLS; ftps has a port of its own, so that the other one may have to be found out."""
        is_usual = self.port == _PORTS[self.scheme]
        port = _PORTS["ftp"] if is_usual or self.scheme == "ftps" else self.port
        more = ":PORT" if self.scheme == "ftps" and not is_usual else ""
        return f"{msgspec.structs.replace(self, scheme='ftp', port=port)}{more}"


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


# -- who logs in -------------------------------------------------------------------------------------------------

# Who logs in, with which password: from ~/.netrc, else asked for. Anyone may look; only contributors send.


# Asks a person: the question, and whether the answer is a secret. None where there is nobody to ask.
Ask = Callable[[str, bool], str] | None


class Credentials(msgspec.Struct, frozen=True):
    """A name and its password, which a repr doesn't show."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Login({self.user!r})"


ANONYMOUS = Credentials("anonymous", "construir@")


def login_for(address: Address, ask: Ask) -> Credentials:
    """Who logs in to send a job. Raises LoginError where that can't be found out, ConfigError for a bad ~/.netrc."""
    user, password = _noted(address.host)
    if address.user and address.user != user:
        user, password = address.user, _noted_for(address.host, address.user)
    if user and password:
        return _plain(Credentials(user, password))
    if ask is None:
        remedy = f"machine {address.host} login {user or 'NAME'} password PASSWORD"
        raise LoginError(f"no password for {address.host}, and no terminal to ask on; put into ~/.netrc: {remedy}")
    user = user or ask(f"Name at {address.host}", False)
    return _plain(Credentials(user, ask(f"Password of {user} at {address.host}", True)))


def _noted(host: str) -> tuple[str, str]:
    """Name and password in ~/.netrc, "" for what isn't there."""
    path = home.find() / ".netrc"
    try:
        noted = netrc.netrc().authenticators(host)
    except (FileNotFoundError, NotADirectoryError):
        return "", ""
    except netrc.NetrcParseError as error:
        raise ConfigError(f"{path}: {_why_unread(path, error)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {error}; is HOME right?") from error
    return (noted[0] or "", noted[2] or "") if noted else ("", "")


def _noted_for(host: str, user: str) -> str:
    """The password of one of several who have an entry for the same host, of which netrc gives the last one alone."""
    try:
        lines = (home.find() / ".netrc").read_text().splitlines()
        lexer = shlex.shlex("\n".join(line for line in lines if not line.lstrip().startswith("#")), posix=True)
        lexer.whitespace_split, lexer.quotes, lexer.commenters = True, '"', ""
        words = iter(list(lexer))
    except (OSError, ValueError):
        return ""
    entry: dict[str, str] = {}
    for key in words:
        if key in ("machine", "default"):
            entry = {}
        if key in ("machine", "login", "account", "password"):
            entry[key] = next(words, "")
        if (entry.get("machine"), entry.get("login")) == (host, user) and "password" in entry:
            return entry["password"]
    return ""


def _why_unread(path: Path, error: netrc.NetrcParseError) -> str:
    """What is wrong with ~/.netrc, and what to do; no word of it, which may be a part of a password."""
    if "permissive" in error.msg:
        return f"others may read it, with the passwords in it; run: chmod 600 {shlex.quote(str(path))}"
    if "owner" in error.msg:
        return "it is another user's, so that its passwords are not used; have one of your own"
    where = f" near line {error.lineno}" if error.lineno else ""
    return f'it makes no sense{where}; a password with {ODD} in it stands in quotes: password "..."'


def needs_quotes(password: str) -> bool:
    """Whether programs that read ~/.netrc take a password for something else, unless it is in quotes."""
    return re.search(r'[\s"\\#]', password) is not None


def _plain(login: Credentials) -> Credentials:
    """A login that is one line for each. FTP has no other way to say them."""
    if not (login.user + login.password).isprintable() or not login.user:
        raise LoginError("a name and a password are of characters that can be printed; is a quote open in ~/.netrc?")
    return login
