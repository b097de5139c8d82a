"""A statement that an appliance has signed, whatever it states: its result held against it, and run again."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from construir_ftp.errors import ConstruirError
from construir_ftp.jobs import sums
from construir_ftp.jobs.result import PROVENANCE, RESULT, SIGNATURE, SUMS
from construir_ftp.jobs.spool import Spool
from construir_ftp.trust import dsse, equivalence, recipe, verify
from construir_ftp.trust.dsse import Envelope, EnvelopeSignature
from construir_ftp.trust.seal import Seal
from tests.fuzz.targets import Attempt, Settle, demand_line
from tests.support import signed

_SEPARATOR = b"\n---\n"


def _sign(place: Path, seal: Seal, payload: bytes, told: bytes) -> None:
    """A result whose provenance is `payload`, and whose result.json, if that is not empty, is `told`."""
    signature = seal.key.sign(dsse.signed_bytes(payload))
    envelope = Envelope(payload, dsse.PAYLOAD_TYPE, (EnvelopeSignature(seal.key.public.fingerprint, signature),))
    (place / PROVENANCE).write_bytes(envelope.line())
    (place / verify.STATEMENTS).write_bytes(envelope.line())
    if told:
        (place / RESULT).write_bytes(told)
    listed = sums.parse((place / SUMS).read_bytes())
    changed = {name: hashlib.sha256((place / name).read_bytes()).hexdigest() for name in (PROVENANCE, RESULT)}
    (place / SUMS).write_bytes(sums.render({**listed, **changed}))
    (place / SIGNATURE).write_bytes(seal.signature((place / SUMS).read_bytes()))


@contextmanager
def target() -> Iterator[tuple[Attempt, Settle]]:
    """What makes no sense is damaged, and nothing else."""
    with tempfile.TemporaryDirectory() as name:
        spool = Spool.prepare(Path(name) / "spool")
        seal = signed.seal(spool.path)
        place = signed.result(spool, seal)
        for path in (place, *place.iterdir()):
            path.chmod(0o755)
        usual = (place / RESULT).read_bytes()

        def attempt(data: bytes) -> None:
            payload, _, told = data.partition(_SEPARATOR)
            _sign(place, seal, payload, told or usual)
            try:
                proof = verify.check(place, [seal.key.public])
                demand_line(proof.builder or "-")
                equivalence.vouching(place, proof, [seal.key.public])
                made = recipe.of(proof.provenance)
                equivalence.compare([made, made])
            except ConstruirError as error:
                demand_line(str(error))

        yield attempt, lambda: None
