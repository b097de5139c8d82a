"""Whether a signature is a key's: by the library `cryptography` where that is installed, else by openssl 3.

Which of the two there is depends on the system; both say the same.
"""

import importlib.util
import shutil
import tempfile
from pathlib import Path

from construir_ftp import process
from construir_ftp.errors import CommandError, ConstruirError
from construir_ftp.trust.keys import DER_PREFIX, RAW_BYTES, PublicKey

SIGNATURE_BYTES = 64
_PATIENCE_S = 60.0
_REFUSED = "Signature Verification Failure"


def can_verify() -> bool:
    """Whether there is either here."""
    return importlib.util.find_spec("cryptography") is not None or shutil.which("openssl") is not None


def verify(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is that of `key` over `message`. Raises ConstruirError where nothing here can tell."""
    if len(key.raw) != RAW_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        return by_openssl(key, message, signature)
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def by_openssl(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """The same, by the program alone."""
    with tempfile.TemporaryDirectory(prefix="construir-") as name:
        place = Path(name)
        parts = {"key": DER_PREFIX + key.raw, "message": message, "signature": signature}
        for part, content in parts.items():
            (place / part).write_bytes(content)
        argv = ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "key"]
        argv += ["-rawin", "-in", "message", "-sigfile", "signature"]
        try:
            process.capture(argv, timeout_s=_PATIENCE_S, cwd=place, all_of_it=True)
        except CommandError as error:
            if _REFUSED in str(error):
                return False
            raise ConstruirError(f"no signature can be checked here: pip install cryptography ({error})") from error
    return True
