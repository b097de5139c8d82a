"""Public keys: ed25519, as OpenSSH writes them, and files of them in the format of allowed_signers (ssh-keygen(1))."""

import base64
import binascii
import hashlib
import re
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

import msgspec

from construir_ftp.errors import ConfigError

KIND = "ssh-ed25519"
# What an appliance signs for, and whom its lines name: for ssh-keygen's -n and -I.
NAMESPACE, PRINCIPAL = "construir", "construir"
RAW_BYTES = 32
# SubjectPublicKeyInfo of such a key (RFC 8410, 10.1), but for the key itself.
DER_PREFIX = bytes.fromhex("302a300506032b6570032100")
# Of a line of allowed_signers: words, and the options in one of them. What is in quotes may hold spaces and commas.
_WORD, _OPTION = (re.compile(rf'(?:[^{end}"]|"(?:[^"\\]|\\.)*+"?)++') for end in (r"\s", ","))
_TIMES = ("valid-after", "valid-before")
_OPTIONS = ("cert-authority", "namespaces", *_TIMES)
_TIMES_LIKE = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


class PublicKey(msgspec.Struct, frozen=True):
    """A public key, by its 32 bytes (RFC 8032)."""

    raw: bytes

    @property
    def blob(self) -> bytes:
        """As it travels in SSH (RFC 8709)."""
        return field(KIND.encode()) + field(self.raw)

    @property
    def fingerprint(self) -> str:
        """What people compare, as `ssh-keygen -l` shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    def line(self, comment: str = "") -> str:
        """As in a .pub file, and in authorized_keys."""
        return f"{KIND} {base64.b64encode(self.blob).decode()} {comment}".rstrip()

    def signer_line(self, host: str) -> str:
        """As in allowed_signers: it is good for results alone."""
        return f'{PRINCIPAL},{PRINCIPAL}@{host} namespaces="{NAMESPACE}" {self.line()}'

    def authority_line(self, host: str) -> str:
        """The same, of the keys that it certifies."""
        return f'{PRINCIPAL},{PRINCIPAL}@{host} cert-authority,namespaces="{NAMESPACE}" {self.line()}'


def field(data: bytes) -> bytes:
    """A string as SSH writes it: its length, then its bytes (RFC 4251, 5)."""
    return struct.pack(">I", len(data)) + data


def of_blob(blob: bytes) -> PublicKey:
    """The key that SSH writes so. Raises ValueError for any other kind."""
    key = PublicKey(blob[-RAW_BYTES:])
    if key.blob != blob:
        raise ValueError(f"not a key of the kind {KIND}")
    return key


def read(text: str, source: str) -> list[PublicKey]:
    """All keys in a .pub file or in allowed_signers, in their order. Raises ConfigError where there is none."""
    found = list(dict.fromkeys(_of_lines(text.splitlines())))
    if not found:
        expected = f"expected a line with {KIND} and a key in base64"
        raise ConfigError(f"{source}: no public key is in it that may sign results today; {expected}")
    return found


def _of_lines(lines: Iterable[str]) -> Iterable[PublicKey]:
    for line in lines:
        words = _WORD.findall(line)
        # Before the kind there may be principals, and then options.
        if line.lstrip().startswith(("#", "@")) or KIND not in words[:-1][:3]:
            continue
        kind = words.index(KIND)
        try:
            if all(map(_is_for_us, _options(words[:kind]))):
                yield of_blob(base64.b64decode(words[kind + 1], validate=True))
        except (binascii.Error, ValueError):
            continue


def _options(before: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The name and the value of each option in front of a key; a line without principals may have them, too."""
    for position, word in enumerate(before):
        for option in _OPTION.findall(word):
            name, _, value = option.partition("=")
            if position or name.lower() in _OPTIONS:
                yield name.lower(), value.strip('"')


def _is_for_us(option: tuple[str, str]) -> bool:
    """Whether an option lets a key sign results today. One that is not known here does not, as with ssh-keygen."""
    name, value = option
    if name == "namespaces":
        return NAMESPACE in value.split(",")
    try:
        return name in _TIMES and (_moment(value) <= time.time()) == (name == "valid-after")
    except (KeyError, ValueError, OverflowError):
        return False


def _moment(text: str) -> float:
    """YYYYMMDD[HHMM[SS]], in the time zone here, or with a Z in UTC. Raises KeyError, ValueError, OverflowError."""
    digits = text.removesuffix("Z")
    found = datetime.strptime(digits, _TIMES_LIKE[len(digits)])
    return (found.replace(tzinfo=UTC) if digits != text else found.astimezone()).timestamp()
