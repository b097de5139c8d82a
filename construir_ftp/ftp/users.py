"""The users file: who may send jobs, and the argon2 hash of each one's password.

    [contributors.alice]
    password = "$argon2id$v=19$m=65536,t=3,p=4$..."
    mail = "alice@example.org"
    keyring = "keyrings/alice.gpg"
    weight = 2

`mail` is where the contributor is told of the ends of their jobs, `keyring` has the keys that sign their Debian
sources, beside the users file; the operator alone sets both. With a weight so many of their jobs count as one when it
comes to whose turn it is. The file is replaced in one step, so that it can be read at any moment; a change counts from
the next login on. Passwords are never kept, logged or compared in clear.
"""

import os
import re
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import argon2
import msgspec

from construir_ftp import files, locks
from construir_ftp.errors import ConfigError, MissingError, UsageError, one_line
from construir_ftp.ftp import keyring
from construir_ftp.units import is_mail_address

_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
# What FTP clients log in as when nobody told them a name (RFC 1635).
ANONYMOUS = ("anonymous", "ftp")
_SHORTEST, _LONGEST = 8, 256
_MOST_WEIGHT = 100
_HASH = re.compile(r"\$argon2(id?|d)\$v=\d+\$m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+", re.ASCII)

# RFC 9106, section 4, second recommended option: 64 MiB of memory.
_hasher = argon2.PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=4)
# The hash of a password that nobody has kept: what an unknown name is checked against, at the same cost.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$h/fuIrTAnZgx70xr5CLQHg$lpRhFCxB4Ec5ez8zbj4WNq1fun7H3Ev2l9htTUJSH7k"


class _Contributor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    password: str
    mail: str = ""
    keyring: str = ""
    weight: Annotated[int, msgspec.Meta(ge=1, le=_MOST_WEIGHT)] = 1


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    contributors: dict[str, _Contributor] = {}


_Contributors = dict[str, _Contributor]


class Users:
    """The contributors named in the file at `path`; no file, no contributors. Safe to use from several threads.

    Every method raises ConfigError if the file can't be read, or holds what it must not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._contributors: _Contributors = {}

    def names(self) -> list[str]:
        """Every contributor, in alphabetical order."""
        return sorted(self._current())

    def demand_new(self, name: str) -> None:
        """Raises UsageError for an unfit name, and for one that is there: before anybody is asked for a password."""
        _check_name(name)
        _expect_new(name, self._current())

    def demand_known(self, name: str) -> None:
        """Raises MissingError for a name that isn't there."""
        _expect(name, self._current())

    def mail(self, name: str) -> str:
        """Where `name` is told of their jobs; empty if that is nowhere, or the name unknown."""
        contributor = self._current().get(name)
        return contributor.mail if contributor else ""

    def keyring(self, name: str) -> Path | None:
        """The keys, one of which is to sign the sources of `name`; None if they need no signature."""
        contributor = self._current().get(name)
        return self.path.parent / contributor.keyring if contributor and contributor.keyring else None

    def weight(self, name: str) -> int:
        """How many jobs of `name` count as one when it comes to whose turn it is."""
        contributor = self._current().get(name)
        return contributor.weight if contributor else 1

    def check(self, name: str, password: str) -> bool:
        """Whether `password` is that of `name`. Takes a while on purpose, as long for a name that is unknown."""
        contributor = self._current().get(name)
        stored = contributor.password if contributor else None
        try:
            matches = _hasher.verify(stored or _NOBODY, password.encode(errors="surrogatepass"))
        except argon2.exceptions.VerifyMismatchError:
            return False
        except argon2.exceptions.VerificationError as error:
            raise ConfigError(f"{self.path}: contributors.{name}: {error}; {_again(name)}") from error
        return matches and stored is not None

    def add(self, name: str, password: str, mail: str = "") -> None:
        """Let `name` send jobs. Raises UsageError for what is unfit, and for a name that is there."""
        _check_name(name)
        _check_mail(mail)
        fresh = _Contributor(_hash(password), mail)

        def put(contributors: _Contributors) -> None:
            _expect_new(name, contributors)
            contributors[name] = fresh

        self._rewrite(put)

    def set_password(self, name: str, password: str) -> None:
        """Give `name` another password. Raises UsageError for an unfit one, MissingError for an unknown name."""
        self._change(name, password=_hash(password))

    def set_mail(self, name: str, mail: str) -> None:
        """Have `name` told of their jobs there; nowhere, if that is empty. Raises as set_password does."""
        _check_mail(mail)
        self._change(name, mail=mail)

    def set_keyring(self, name: str, keys: bytes) -> None:
        """Have a key of these sign the sources of `name`; no signature is asked for, if there are none.

        They are as `gpg --export` writes them, with or without --armor. Raises as set_password does.
        """
        _expect(name, self._current())
        path = keyring.place(self.path.parent, name)
        if keys:
            keyring.write(path, keys)
        self._change(name, keyring=str(path.relative_to(self.path.parent)) if keys else "")

    def set_weight(self, name: str, weight: int) -> None:
        """Have so many jobs of `name` count as one. Raises UsageError for an unfit number, as set_password does."""
        if not 1 <= weight <= _MOST_WEIGHT:
            raise UsageError(f"a weight is a number from 1 to {_MOST_WEIGHT}")
        self._change(name, weight=weight)

    def remove(self, name: str) -> None:
        """Let `name` send no more jobs; sent ones stay. Raises MissingError for a name that isn't there."""

        def take_out(contributors: _Contributors) -> None:
            _expect(name, contributors)
            del contributors[name]

        self._rewrite(take_out)

    def _change(self, name: str, **fields: str | int) -> None:
        def put(contributors: _Contributors) -> None:
            _expect(name, contributors)
            contributors[name] = msgspec.structs.replace(contributors[name], **fields)

        self._rewrite(put)

    def _current(self) -> _Contributors:
        """All of them, read again if the file has changed."""
        with self._lock:
            seen = _signature(self.path)
            if seen is None or seen != self._seen:
                self._contributors = _read(self.path)
                self._seen = seen
            return self._contributors

    def _rewrite(self, change: Callable[[_Contributors], None]) -> None:
        """Read, change, write: two at once wait for each other. On return the file is on stable storage."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locks.alone(self.path.with_name(f".{self.path.name}.lock")):
                contributors = _read(self.path)
                change(contributors)
                _replace(self.path, _text(contributors))
        except OSError as error:
            raise ConfigError(
                f"{self.path}: {error.strerror}; choose another with the key ftp.users, or make it writable"
            ) from error


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name in ANONYMOUS:
        raise UsageError(
            f"{name!a} can't be a contributor's name: that is 1 to 32 of a-z 0-9 _ -, "
            f"begins with a letter or _, and is not {' or '.join(ANONYMOUS)}"
        )


def _check_mail(mail: str) -> None:
    if mail and not is_mail_address(mail):
        raise UsageError(f"{mail!a} is no mail address; expected one such as alice@example.org")


def _expect(name: str, contributors: _Contributors) -> None:
    if name not in contributors:
        raise MissingError(f"there is no contributor {name!a}; run: construir user list")


def _expect_new(name: str, contributors: _Contributors) -> None:
    if name in contributors:
        raise UsageError(f"there is a contributor {name!r} already; {_again(name)}")


def _again(name: str) -> str:
    return f"to set the password run: construir user password {name}"


def demand_fit(password: str) -> None:
    """Raises UsageError for a password that is too short, or that can't be typed, or sent as one line of FTP."""
    if len(password) < _SHORTEST:
        raise UsageError(f"a password has at least {_SHORTEST} characters, this one has {len(password)}")
    if len(password) > _LONGEST or not password.isprintable():
        raise UsageError(f"a password has at most {_LONGEST} characters, and none that can't be printed")


def _hash(password: str) -> str:
    """The argon2 hash of a fit password. Raises UsageError."""
    demand_fit(password)
    return _hasher.hash(password)


def _signature(path: Path) -> tuple[int, ...] | None:
    """What differs when a file was replaced or edited; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _read(path: Path) -> _Contributors:
    try:
        file = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; make it readable for the FTP server") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {one_line(error)}; mend it as etc/users.example shows") from error
    for name, contributor in file.contributors.items():
        _check_entry(path, name, contributor)
    return file.contributors


def _check_entry(path: Path, name: str, contributor: _Contributor) -> None:
    try:
        _check_name(name)
        _check_mail(contributor.mail)
        keyring.check(contributor.keyring)
    except UsageError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not _HASH.fullmatch(contributor.password):
        raise ConfigError(f"{path}: contributors.{name}.password: not an argon2 hash; {_again(name)}")


def _text(contributors: _Contributors) -> str:
    return "# Who may send jobs. Kept by: construir user add|set|list|password|remove\n" + "".join(
        f"\n{_entry(name, contributor)}" for name, contributor in sorted(contributors.items())
    )


def _entry(name: str, contributor: _Contributor) -> str:
    # A name is a bare key, and nothing in a hash or an address needs escaping: see _NAME, _HASH, units.is_mail_address.
    mail = f'mail = "{contributor.mail}"\n' if contributor.mail else ""
    keys = f'keyring = "{contributor.keyring}"\n' if contributor.keyring else ""
    weight = f"weight = {contributor.weight}\n" if contributor.weight != 1 else ""
    return f'[contributors.{name}]\npassword = "{contributor.password}"\n{mail}{keys}{weight}'


def _replace(path: Path, text: str) -> None:
    """Like files.replace_durably, but the file keeps the owner and the mode it had; a new one is for its owner only."""
    files.sweep_drafts(path.parent, path.name)
    with files.draft(path) as draft:
        files.write_durably(draft, text.encode(), 0o600)
        if path.exists():
            status = path.stat()
            os.chown(draft, status.st_uid, status.st_gid)
            draft.chmod(status.st_mode & 0o777)
            files.fsync(draft)
        draft.replace(path)
    files.fsync(path.parent)
