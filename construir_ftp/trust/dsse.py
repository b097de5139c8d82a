"""Envelopes of signed statements: DSSE v1 (github.com/secure-systems-lab/dsse), one a line of a .intoto.jsonl file."""

import msgspec

from construir_ftp import schema
from construir_ftp.errors import DamagedError
from construir_ftp.trust import ed25519
from construir_ftp.trust.keys import PublicKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"


class EnvelopeSignature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of an envelope's; `keyid` is the key's fingerprint."""

    keyid: str
    sig: bytes


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A statement, as JSON, and the signatures of all who make it. Bytes travel as base64."""

    payload: bytes
    payload_type: str
    signatures: tuple[EnvelopeSignature, ...]

    def line(self) -> bytes:
        """As it stands in a file."""
        return msgspec.json.encode(self) + b"\n"

    def is_signed_by(self, key: PublicKey) -> bool:
        """Whether one of the signatures is that of `key`."""
        message = signed_bytes(self.payload)
        return any(
            ed25519.verify(key, message, signature.sig)
            for signature in self.signatures
            if signature.keyid == key.fingerprint
        )


def signed_bytes(payload: bytes) -> bytes:
    """What a key signs: the pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def parse(content: bytes, source: str) -> list[Envelope]:
    """All envelopes in a file. Raises DamagedError."""
    try:
        found = [schema.from_json(line, Envelope) for line in content.splitlines()]
    except msgspec.MsgspecError as error:
        raise DamagedError(f"{source}: not an envelope with a signed statement: {error}") from error
    if not found or any(envelope.payload_type != PAYLOAD_TYPE for envelope in found):
        raise DamagedError(f"{source}: expected envelopes of {PAYLOAD_TYPE}")
    return found


def only(content: bytes, source: str) -> Envelope:
    """The one envelope in a file. Raises DamagedError, also where there are more: who reads them may take any."""
    first, *more = parse(content, source)
    if more:
        raise DamagedError(f"{source}: expected one statement, and there are {1 + len(more)}")
    return first
