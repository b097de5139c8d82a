"""The signatures of a result, made by the key of the appliance that ran it."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import msgspec

from construir_ftp.config import TrustSection
from construir_ftp.errors import ConstruirError, plainly
from construir_ftp.jobs.result import Result
from construir_ftp.trust import dsse, key_place, sshsig, statement
from construir_ftp.trust.dsse import Envelope, EnvelopeSignature
from construir_ftp.trust.key_place import PrivateKey
from construir_ftp.trust.sshsig import Signature
from construir_ftp.trust.statement import Statement

log = logging.getLogger("construir.trust")

# For so long what has signed once is taken to sign again. A trial takes a few milliseconds.
_FRESH_S = 10.0
_TRIAL = b"no result, nor a statement"


class SigningError(ConstruirError):
    """The key can't be used at the moment: the host's fault, never the job's."""


class _Last(msgspec.Struct):
    """When a key has signed last, by the monotonic clock; never, if the last time failed."""

    signed_s: float = -math.inf

    def is_fresh(self) -> bool:
        return time.monotonic() - self.signed_s < _FRESH_S


class Seal(msgspec.Struct, frozen=True):
    """A key, and what the appliance that has it is called. Safe to use from several threads."""

    key: PrivateKey
    host: str
    _last: _Last = msgspec.field(default_factory=_Last)

    @classmethod
    def of(cls, spool: Path, section: TrustSection) -> Self:
        """That of an appliance, its key made if it has none. Raises ConstruirError."""
        key = key_place.open_key(spool, section)
        log.info("results are signed with %s, as %s", key.public.fingerprint, key_place.name(section))
        return cls(key, key_place.name(section))

    def provenance(self, result: Result, sums: dict[str, str], wishes: str, made_of: dict[str, Any]) -> bytes:
        """provenance.intoto.jsonl of a result; see statement.of_result. Raises SigningError."""
        return self.envelope(statement.of_result(result, sums, wishes, self.host, made_of)).line()

    def envelope(self, told: Statement) -> Envelope:
        """A statement, signed. Raises SigningError."""
        payload = told.encoded()
        signature = self._sign(dsse.signed_bytes(payload))
        return Envelope(payload, dsse.PAYLOAD_TYPE, (EnvelopeSignature(self.key.public.fingerprint, signature),))

    def signature(self, sums: bytes) -> bytes:
        """SHA256SUMS.sig, for a SHA256SUMS of this content. Raises SigningError."""
        return sshsig.armored(Signature(self.key.public, self._sign(sshsig.signed_bytes(sums))))

    def demand_usable(self) -> None:
        """Raises SigningError where a result can't be signed: the key is not the one that was opened, or can't be read,
        or, where nothing was signed for ten seconds, a trial fails.
        """
        with self._signing():
            self.key.demand_usable()
        if not self._last.is_fresh():
            self._sign(_TRIAL)

    def _sign(self, message: bytes) -> bytes:
        with self._signing():
            self._last.signed_s = -math.inf
            signature = self.key.sign(message)
            self._last.signed_s = time.monotonic()
            return signature

    @contextmanager
    def _signing(self) -> Iterator[None]:
        try:
            with plainly(self.key.path):
                yield
        except ConstruirError as error:
            raise SigningError(f"results can't be signed: {error}") from error
