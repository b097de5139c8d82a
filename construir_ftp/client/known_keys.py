"""The keys that servers sign results with, each as it was when its server was first met from this computer.

    $XDG_STATE_HOME/construir/keys/<host>_<port>    the server's address, its keys as in allowed_signers, and those
                                                    of nodes that it has revoked

A server's key that is another one later is never taken for it by itself.
"""

import ftplib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from construir_ftp import home
from construir_ftp.client import remote_files
from construir_ftp.client.address import Address
from construir_ftp.errors import ConfigError, ConstruirError, plainly
from construir_ftp.trust import keys
from construir_ftp.trust.keys import PublicKey

# What a server shows at its root.
SIGNERS, REVOKED = "/allowed_signers", "/revoked_keys"
_MARK = "# revoked: "


class Known(msgspec.Struct, frozen=True):
    """What is known of a server: how it is called, its keys, and those of nodes that it no longer vouches for."""

    server: str
    keys: tuple[PublicKey, ...]
    revoked: tuple[PublicKey, ...] = ()


class KnownKeys:
    """All of them, in one directory."""

    def __init__(self, place: Path) -> None:
        self._place = place / "keys"

    def path(self, where: Address) -> Path:
        """The file of a server."""
        return self._place / re.sub(r"[^A-Za-z0-9.-]", "_", f"{where.host}_{where.port}")

    def of(self, where: Address) -> list[PublicKey]:
        """The keys of a server; none if it was never met, or had none. Raises ConfigError where the file is damaged."""
        path = self.path(where)
        with plainly(path):
            return keys.read(path.read_text(errors="replace"), str(path)) if path.exists() else []

    def every(self) -> Iterator[Known]:
        """All servers, and their keys."""
        for path in sorted(self._place.glob("[!.]*")):
            with suppress(OSError, ConfigError):
                text = path.read_text(errors="replace")
                server = text.partition("\n")[0].removeprefix("# ")
                yield Known(server, tuple(keys.read(text, str(path))), _revoked(text))

    def keep(self, where: Address, found: Sequence[PublicKey], revoked: Sequence[PublicKey] = ()) -> None:
        """From now on these, and those before, are the keys of the server, and those it has revoked. Raises
        ConstruirError.
        """
        path, head = self.path(where), f"# {where.scheme}://{where.host}:{where.port}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Another command may keep its own at the same time, and replace what is written here.
            while True:
                before, was = self.of(where), _revoked_in(path)
                if set(found) <= set(before) and set(revoked) <= set(was):
                    return
                lines = [key.signer_line(where.host) for key in dict.fromkeys([*found, *before])]
                lines += [_MARK + key.line() for key in dict.fromkeys([*was, *revoked])]
                _replace(path, "\n".join([head, *lines, ""]))
        except OSError as error:
            why = f"{error.filename or path}: {error.strerror}; the key of {where} can't be kept"
            raise ConstruirError(f"{why}; {home.CURE}") from error


def _revoked_in(path: Path) -> tuple[PublicKey, ...]:
    return _revoked(path.read_text(errors="replace")) if path.exists() else ()


def _revoked(text: str) -> tuple[PublicKey, ...]:
    marked = [line.removeprefix(_MARK) for line in text.splitlines() if line.startswith(_MARK)]
    return tuple(keys.read("\n".join(marked), "it")) if marked else ()


def _replace(path: Path, text: str) -> None:
    """Give a file new content in one step, by a draft that nobody else has; `files` is for Linux alone."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink()
        raise


def ask(ftp: ftplib.FTP) -> list[PublicKey]:
    """The keys that a server shows; none where it has none."""
    shown = remote_files.small(ftp, SIGNERS)
    return keys.read(shown.decode(errors="replace"), SIGNERS) if shown else []


def ask_revoked(ftp: ftplib.FTP) -> list[PublicKey]:
    """The keys of nodes that a server no longer vouches for."""
    shown = remote_files.small(ftp, REVOKED)
    return keys.read(shown.decode(errors="replace"), REVOKED) if shown else []
