"""A contributor's keyring: the public keys that sign their Debian sources, as a file that gpgv(1) reads.

It lies beside the users file. Any part may read it, since what is in it is public.
"""

import base64
import binascii
import re
from pathlib import Path

from construir_ftp import files
from construir_ftp.errors import UsageError

_MODE = 0o644
_MOST_BYTES = 2**20
_PLACE = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
# RFC 9580, 6.2: headers, an empty line, base64, and perhaps its check sum.
_ARMORED = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\n(?:[!-~]+: [^\n]*\n)*\n([A-Za-z0-9+/=\n]*?)(?:=[A-Za-z0-9+/]{4}\n)?"
    rb"-----END PGP PUBLIC KEY BLOCK-----"
)


def place(directory: Path, name: str) -> Path:
    """Where the keyring of a contributor is, whose users file is in `directory`."""
    return directory / "keyrings" / f"{name}.gpg"


def check(said: str) -> None:
    """Raises UsageError for what is no path below the users file's directory, as the users file has one."""
    if said and (not _PLACE.fullmatch(said) or ".." in said.split("/")):
        raise UsageError(f"{said!a} is no keyring; expected a path such as keyrings/alice.gpg")


def write(path: Path, keys: bytes) -> None:
    """Put the keys of `gpg --export`, with or without --armor, into a keyring. Raises UsageError, OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.replace_durably(path, _binary(keys), _MODE)


def _binary(keys: bytes) -> bytes:
    blocks = _ARMORED.findall(keys.replace(b"\r\n", b"\n"))
    try:
        plain = b"".join(map(base64.b64decode, blocks)) if blocks else keys
    except binascii.Error as error:
        raise UsageError(f"the keyring can't be read ({error}); make it with: gpg --export KEY") from error
    # RFC 9580, 4.2 and 5: the first packet is a public key, in the new form or the old.
    if len(plain) > _MOST_BYTES or plain[:1] not in (b"\xc6", b"\x98", b"\x99", b"\x9a"):
        raise UsageError("the keyring holds no public key; make it with: gpg --export KEY")
    return plain
