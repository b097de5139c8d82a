"""Certificates of OpenSSH (PROTOCOL.certkeys): a front's word that the key of a node signs results in its name.

One holds until the node's key is revoked: results are kept, and have to be verified, for longer than any term would be.
"""

import base64
import binascii
import secrets
import struct
import time
from collections.abc import Callable

import msgspec

from construir_ftp.errors import DamagedError
from construir_ftp.trust import ed25519
from construir_ftp.trust.keys import KIND, PRINCIPAL, RAW_BYTES, PublicKey, field, of_blob

CERTIFIED = "ssh-ed25519-cert-v01@openssh.com"
_USER, _NONCE_BYTES, _FOREVER = 1, 32, 2**64 - 1
_SIGNED_BY = field(KIND.encode())


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """That `authority` says of `key`; `name` is the node's. Times are seconds since 1970."""

    key: PublicKey
    authority: PublicKey
    name: str
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int
    blob: bytes

    def is_valid(self) -> bool:
        """Whether it is for results, and holds today."""
        return PRINCIPAL in self.principals and self.valid_after <= time.time() < self.valid_before

    @property
    def host(self) -> str:
        """What the appliance is called."""
        hosts = [one.partition("@")[2] for one in self.principals if one.startswith(f"{PRINCIPAL}@")]
        return hosts[0] if hosts else ""

    def line(self) -> str:
        """As in a -cert.pub file, for `ssh-keygen -L`."""
        return f"{CERTIFIED} {base64.b64encode(self.blob).decode()} {self.name}"


def make(key: PublicKey, name: str, host: str, authority: PublicKey, sign: Callable[[bytes], bytes]) -> Certificate:
    """The one of a node, of the appliance that is called `host`; `sign` is the authority's."""
    principals = b"".join(field(one.encode()) for one in (PRINCIPAL, f"{PRINCIPAL}@{host}"))
    parts = [field(CERTIFIED.encode()), field(secrets.token_bytes(_NONCE_BYTES)), field(key.raw)]
    parts += [struct.pack(">QI", 0, _USER), field(name.encode()), field(principals), struct.pack(">QQ", 0, _FOREVER)]
    parts += [field(b""), field(b""), field(b""), field(authority.blob)]
    told = b"".join(parts)
    return parse(told + field(_SIGNED_BY + field(sign(told))))


def read(text: str) -> Certificate:
    """The one in a -cert.pub file. Raises DamagedError."""
    words = text.split()
    try:
        return parse(base64.b64decode(words[1], validate=True))
    except (IndexError, binascii.Error, ValueError) as error:
        raise DamagedError("no certificate is in it") from error


def parse(blob: bytes) -> Certificate:
    """As it travels in SSH. Raises DamagedError unless it is one of a user's key, without conditions, and signed."""
    try:
        found, told, signature = _read(blob)
    except (struct.error, ValueError) as error:
        raise DamagedError("it is signed with a certificate that can't be read") from error
    if not ed25519.verify(found.authority, told, signature):
        raise DamagedError(f"a certificate is not what {found.authority.fingerprint} has signed")
    return found


def _read(blob: bytes) -> tuple[Certificate, bytes, bytes]:
    """The certificate, what is signed of it, and the signature."""
    kind, rest = take(blob)
    _, rest = take(rest)
    raw, rest = take(rest)
    _, role = struct.unpack_from(">QI", rest)
    name, rest = take(rest[12:])
    principals, rest = take(rest)
    after, before = struct.unpack_from(">QQ", rest)
    critical, rest = take(rest[16:])
    _, rest = take(rest)
    _, rest = take(rest)
    authority, rest = take(rest)
    told = blob[: len(blob) - len(rest)]
    signed, rest = take(rest)
    if (kind, role, critical, rest) != (CERTIFIED.encode(), _USER, b"", b"") or len(raw) != RAW_BYTES:
        raise ValueError("not of a kind that is made here")
    algorithm, left = take(signed)
    signature, left = take(left)
    if (field(algorithm), left) != (_SIGNED_BY, b""):
        raise ValueError("signed by another kind of key")
    certificate = Certificate(
        key=PublicKey(raw),
        authority=of_blob(authority),
        name=name.decode(),
        principals=tuple(one.decode() for one in _every(principals)),
        valid_after=after,
        valid_before=before,
        blob=blob,
    )
    return certificate, told, signature


def take(data: bytes) -> tuple[bytes, bytes]:
    """The first string of what SSH has written, and the rest. Raises ValueError, struct.error."""
    (length,) = struct.unpack_from(">I", data)
    if len(data) < 4 + length:
        raise ValueError("it is cut off")
    return data[4 : 4 + length], data[4 + length :]


def _every(data: bytes) -> list[bytes]:
    found = []
    while data:
        one, data = take(data)
        found.append(one)
    return found
