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
from construir_ftp.trust import dsse, key_place, node_key, sshsig, statement
from construir_ftp.trust.certificate import Certificate
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
    """A key, and what the appliance that has it is called. Safe to use from several threads.

    Where it is that of a node, it signs only with the certificate that the front has given to the node of that name.
    """

    key: PrivateKey
    host: str
    spool: Path | None = None
    node: str = ""
    _last: _Last = msgspec.field(default_factory=_Last)

    @classmethod
    def of(cls, spool: Path, section: TrustSection) -> Self:
        """That of an appliance, its key made if it has none. Raises ConstruirError."""
        key = key_place.open_key(spool, section)
        log.info("results are signed with %s, as %s", key.public.fingerprint, key_place.name(section))
        return cls(key, key_place.name(section))

    @classmethod
    def of_node(cls, spool: Path, section: TrustSection, node: str) -> Self:
        """That of a node, its key made if it has none. Raises ConstruirError."""
        key, front = node_key.open_key(spool, node, section), key_place.known(spool)
        if key.public in front[:1]:
            log.info("results are signed with %s, the key of the front", key.public.fingerprint)
            return cls(key, key_place.name(section))
        log.info("results are signed with %s, the key of this node, once it is admitted", key.public.fingerprint)
        return cls(key, key_place.name(section), spool, node)

    def provenance(self, result: Result, sums: dict[str, str], wishes: str, made_of: dict[str, Any]) -> bytes:
        """provenance.intoto.jsonl of a result; see statement.of_result. Raises SigningError."""
        certificate = self._certificate()
        host = certificate.host if certificate else self.host
        return self.envelope(statement.of_result(result, sums, wishes, host, made_of)).line()

    def signs_as(self) -> str:
        """What it calls the appliance; a node's as the front has certified, empty where it has not."""
        if self.spool is None:
            return self.host
        held = node_key.of(self.spool, self.node)
        return held.host if held else ""

    def envelope(self, told: Statement) -> Envelope:
        """A statement, signed. Raises SigningError."""
        payload = told.encoded()
        signature = self._sign(dsse.signed_bytes(payload))
        return Envelope(payload, dsse.PAYLOAD_TYPE, (EnvelopeSignature(self.key.public.fingerprint, signature),))

    def signature(self, sums: bytes) -> bytes:
        """SHA256SUMS.sig, for a SHA256SUMS of this content. Raises SigningError."""
        signature = self._sign(sshsig.signed_bytes(sums))
        return sshsig.armored(Signature(self.key.public, signature, self._certificate()))

    def demand_usable(self) -> None:
        """Raises SigningError where a result can't be signed: the key is not the one that was opened, or can't be read,
        or, where nothing was signed for ten seconds, a trial fails.
        """
        with self._signing():
            self.key.demand_usable()
        self._certificate()
        if not self._last.is_fresh():
            self._sign(_TRIAL)

    def _certificate(self) -> Certificate | None:
        """Of a node, as it is now. Raises SigningError where it has none that holds for its key."""
        if self.spool is None:
            return None
        held = node_key.of(self.spool, self.node)
        if held is None or held.key != self.key.public or node_key.why_not(self.spool, self.node):
            why = node_key.why_not(self.spool, self.node) or "its certificate is that of another key"
            raise SigningError(f"results can't be signed: node {self.node}: {why}")
        return held

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
