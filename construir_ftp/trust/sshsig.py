"""Signatures of files as `ssh-keygen -Y sign` writes them (OpenSSH, PROTOCOL.sshsig). Nothing here makes one."""

import base64
import binascii
import hashlib
import struct

import msgspec

from construir_ftp.errors import DamagedError
from construir_ftp.trust import certificate
from construir_ftp.trust.certificate import Certificate
from construir_ftp.trust.ed25519 import SIGNATURE_BYTES
from construir_ftp.trust.keys import KIND, NAMESPACE, PublicKey, field, of_blob

SUFFIX = ".sig"
_MAGIC, _VERSION, _HASH = b"SSHSIG", struct.pack(">I", 1), b"sha512"
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_LINE_CHARACTERS = 70
_SETTINGS = field(NAMESPACE.encode()) + field(b"") + field(_HASH)


class Signature(msgspec.Struct, frozen=True):
    """Whose it says it is, and its bytes; of a key that another one vouches for its certificate, too."""

    key: PublicKey
    raw: bytes
    certificate: Certificate | None = None


def signed_bytes(content: bytes) -> bytes:
    """What the key signs, for a file of this content."""
    return _MAGIC + _SETTINGS + field(hashlib.sha512(content).digest())


def armored(signature: Signature) -> bytes:
    """The file beside the signed one."""
    signed = field(KIND.encode()) + field(signature.raw)
    whole = (
        _MAGIC
        + _VERSION
        + field(signature.certificate.blob if signature.certificate else signature.key.blob)
        + _SETTINGS
        + field(signed)
    )
    text = base64.b64encode(whole).decode()
    lines = [text[at : at + _LINE_CHARACTERS] for at in range(0, len(text), _LINE_CHARACTERS)]
    return "\n".join([_BEGIN, *lines, _END, ""]).encode()


def parse(content: bytes) -> Signature:
    """Read such a file. Raises DamagedError unless it is, to the last byte, what `armored` would write."""
    try:
        whole = base64.b64decode(b"".join(content.splitlines()[1:-1]), validate=True)
        blob, _ = certificate.take(whole[len(_MAGIC + _VERSION) :])
        raw = whole[-SIGNATURE_BYTES:]
        if blob.startswith(field(certificate.CERTIFIED.encode())):
            certified = certificate.parse(blob)
            found = Signature(certified.key, raw, certified)
        else:
            found = Signature(of_blob(blob), raw)
    except (binascii.Error, struct.error, ValueError) as error:
        raise _nonsense() from error
    if armored(found) != content:
        raise _nonsense()
    return found


def _nonsense() -> DamagedError:
    return DamagedError(f"SHA256SUMS{SUFFIX} is no signature for {NAMESPACE} by a key of the kind {KIND}")
