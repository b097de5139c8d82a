"""Public keys: ed25519, as OpenSSH writes them, and files of them in the format of allowed_signers (ssh-keygen(1))."""

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Iterable

import msgspec

from construir_ftp.errors import ConfigError

KIND = "ssh-ed25519"
# What an appliance signs for, and whom its lines name: for ssh-keygen's -n and -I.
NAMESPACE, PRINCIPAL = "construir", "construir"
RAW_BYTES = 32
# SubjectPublicKeyInfo of such a key (RFC 8410, 10.1), but for the key itself.
DER_PREFIX = bytes.fromhex("302a300506032b6570032100")


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
        raise ConfigError(f"{source}: no public key is in it; expected a line with {KIND} and a key in base64")
    return found


def _is_for_us(line: str) -> bool:
    """Whether the options of a line in allowed_signers allow it to sign results."""
    namespaces = re.search(r'namespaces="([^"]*)"', line)
    return "cert-authority" not in re.split(r"[ ,]", line) and (
        namespaces is None or NAMESPACE in namespaces[1].split(",")
    )


def _of_lines(lines: Iterable[str]) -> Iterable[PublicKey]:
    for line in lines:
        words = line.split()
        if line.startswith("#") or KIND not in words[:-1] or not _is_for_us(line):
            continue
        try:
            yield of_blob(base64.b64decode(words[words.index(KIND) + 1], validate=True))
        except (binascii.Error, ValueError):
            continue
