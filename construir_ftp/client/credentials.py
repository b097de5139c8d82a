"""Who logs in, with which password: from ~/.netrc, else asked for. Anyone may look; only contributors send."""

import netrc
from collections.abc import Callable
from pathlib import Path

import msgspec

from construir_ftp.client.address import Address
from construir_ftp.errors import ConfigError, LoginError

# Asks a person: the question, and whether the answer is a secret. None where there is nobody to ask.
Ask = Callable[[str, bool], str] | None


class Login(msgspec.Struct, frozen=True):
    """A name and its password, which a repr doesn't show."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Login({self.user!r})"


ANONYMOUS = Login("anonymous", "construir@")


def login_for(address: Address, ask: Ask) -> Login:
    """Who logs in to send a job. Raises LoginError where that can't be found out, ConfigError for a bad ~/.netrc."""
    user, password = _noted(address.host)
    if address.user and address.user != user:
        user, password = address.user, ""
    if user and password:
        return _plain(Login(user, password))
    if ask is None:
        remedy = f"machine {address.host} login {user or 'NAME'} password PASSWORD"
        raise LoginError(f"no password for {address.host}, and no terminal to ask on; put into ~/.netrc: {remedy}")
    user = user or ask(f"Name at {address.host}", False)
    return _plain(Login(user, ask(f"Password of {user} at {address.host}", True)))


def _noted(host: str) -> tuple[str, str]:
    """Name and password in ~/.netrc, "" for what isn't there."""
    path = Path.home() / ".netrc"
    try:
        noted = netrc.netrc().authenticators(host)
    except FileNotFoundError:
        return "", ""
    except netrc.NetrcParseError as error:
        raise ConfigError(f"{path}: {error.msg}" + (f" (line {error.lineno})" if error.lineno else "")) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from error
    return (noted[0] or "", noted[2] or "") if noted else ("", "")


def _plain(login: Login) -> Login:
    """A login that is one line for each. FTP has no other way to say them."""
    if not (login.user + login.password).isprintable() or not login.user:
        raise LoginError("a name and a password are of characters that can be printed; see ~/.netrc")
    return login
