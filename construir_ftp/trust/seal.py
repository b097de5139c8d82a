"""The signatures of a result, made by the key of the appliance that ran it."""

import logging
from pathlib import Path
from typing import Self

import msgspec

from construir_ftp.config import TrustSection
from construir_ftp.jobs.result import Result
from construir_ftp.trust import dsse, key_place, sshsig, statement
from construir_ftp.trust.dsse import Envelope, EnvelopeSignature
from construir_ftp.trust.key_place import PrivateKey
from construir_ftp.trust.sshsig import Signature
from construir_ftp.trust.statement import Statement

log = logging.getLogger("construir.trust")


class Seal(msgspec.Struct, frozen=True):
    """A key, and what the appliance that has it is called. Safe to use from several threads."""

    key: PrivateKey
    host: str

    @classmethod
    def of(cls, spool: Path, section: TrustSection) -> Self:
        """That of an appliance, its key made if it has none. Raises ConstruirError."""
        key = key_place.open_key(spool, section)
        log.info("results are signed with %s, as %s", key.public.fingerprint, key_place.name(section))
        return cls(key, key_place.name(section))

    def provenance(self, result: Result, sums: dict[str, str], wishes: str) -> bytes:
        """provenance.intoto.jsonl of a result; see statement.of_result. Raises CommandError, OSError."""
        return self.envelope(statement.of_result(result, sums, wishes, self.host)).line()

    def envelope(self, told: Statement) -> Envelope:
        """A statement, signed."""
        payload = told.encoded()
        signature = self.key.sign(dsse.signed_bytes(payload))
        return Envelope(payload, dsse.PAYLOAD_TYPE, (EnvelopeSignature(self.key.public.fingerprint, signature),))

    def signature(self, sums: bytes) -> bytes:
        """SHA256SUMS.sig, for a SHA256SUMS of this content."""
        return sshsig.armored(Signature(self.key.public, self.key.sign(sshsig.signed_bytes(sums))))
