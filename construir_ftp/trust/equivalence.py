"""Several runs that made the same artifacts, stated and signed by whoever has compared them.

The statement is the same, byte for byte, whoever makes it of the same runs, so that signatures can be collected on one.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from construir_ftp.errors import DamagedError
from construir_ftp.trust import dsse, recipe, statement
from construir_ftp.trust.dsse import Envelope
from construir_ftp.trust.keys import PublicKey
from construir_ftp.trust.recipe import Recipe
from construir_ftp.trust.statement import Digest, Resource, Statement
from construir_ftp.trust.verify import STATEMENTS, Proof, content

if TYPE_CHECKING:
    # Whoever only verifies needs no private key, nor what Linux alone has.
    from construir_ftp.trust.seal import Seal

PREDICATE = "urn:construir:equivalence:v1"


class Comparison(msgspec.Struct, frozen=True):
    """The artifacts of several runs: those that all have made alike, by their digests, and the names of the others."""

    same: dict[str, str]
    different: tuple[str, ...]


def compare(runs: Sequence[Recipe]) -> Comparison:
    """Hold the artifacts of several runs against each other."""
    first, *others = [run.made for run in runs]
    names = sorted({name for made in (first, *others) for name in made})
    same = {
        name: first[name] for name in names if name in first and all(made.get(name) == first[name] for made in others)
    }
    return Comparison(same, tuple(name for name in names if name not in same))


def stated(runs: Sequence[Recipe], found: Comparison) -> Statement:
    """That these runs made the same artifacts. Raises DamagedError if they have none that are."""
    if not found.same:
        raise DamagedError("the runs have made no artifact alike, so there is nothing to state")
    every = {(run.run, run.builder, run.upload_sha256): run for run in runs}
    return Statement(
        subject=tuple(Resource(name=name, digest=Digest(digest)) for name, digest in found.same.items()),
        predicate_type=PREDICATE,
        predicate={"runs": [_named(every[key]) for key in sorted(every)], "different": list(found.different)},
    )


def _named(run: Recipe) -> dict[str, Any]:
    """A run, as a statement has it."""
    return {"invocationId": run.run, "builder": {"id": run.builder}, "upload": run.upload_sha256}


def sign(place: Path, seal: "Seal", told: Statement, others: Sequence[Path] = ()) -> Envelope:
    """Sign a statement, and put it beside the result in the directory `place`, in STATEMENTS.

    What others have signed of the very same statement, there or beside the results in `others`, is collected.
    """
    ours = seal.envelope(told)
    same = [envelope for where in others for envelope in beside(where) if envelope.payload == ours.payload]
    return _put(place, [*beside(place), ours, *same])[ours.payload]


def take(place: Path, shown: bytes) -> None:
    """Put what somebody shows as statements beside the result in a directory, with those that are there already.

    Whether they are signed by anybody is not looked at. Raises DamagedError where it is nothing of the kind.
    """
    _put(place, [*beside(place), *dsse.parse(shown, STATEMENTS)])


def _put(place: Path, envelopes: Sequence[Envelope]) -> dict[bytes, Envelope]:
    """Write them in one step, each statement once, with all of its signatures; returns them by what they state."""
    found: dict[bytes, Envelope] = {}
    for one in envelopes:
        known = found[one.payload].signatures if one.payload in found else ()
        every = sorted({*known, *one.signatures}, key=lambda signature: (signature.keyid, signature.sig))
        found[one.payload] = msgspec.structs.replace(one, signatures=tuple(every))
    draft = place / f".{STATEMENTS}.{os.getpid():x}"
    try:
        draft.write_bytes(b"".join(envelope.line() for envelope in found.values()))
        draft.chmod(0o644)
        draft.replace(place / STATEMENTS)
    finally:
        draft.unlink(missing_ok=True)  # a file too many, by which the result would count as changed
    return found


def beside(place: Path) -> list[Envelope]:
    """What others state of the result in a directory. Raises DamagedError."""
    return dsse.parse(content(place / STATEMENTS), STATEMENTS) if (place / STATEMENTS).exists() else []


def voices(found: Sequence[PublicKey], appliances: Sequence[Sequence[PublicKey]]) -> list[PublicKey]:
    """Of these keys the first of each appliance. A key of none of these appliances stands for one of its own."""
    kept: list[PublicKey] = []
    for key in found:
        same = {other for keys in appliances if key in keys for other in keys}
        kept += [] if same.intersection(kept) else [key]
    return kept


def vouching(place: Path, proof: Proof, trusted: Sequence[PublicKey]) -> list[PublicKey]:
    """Of these keys those that vouch for every artifact of a result: its own, and those of statements beside it.

    A statement counts only for the runs that it names, and if all of them are of the same upload. The same artifacts
    may have been made of another one, of which the result would be told to be then.
    """
    ours = recipe.of(proof.provenance)
    found = [proof.key]
    for envelope in beside(place):
        told = statement.read(envelope, STATEMENTS)
        if ours.made and ours.made.items() <= told.digests().items() and _is_of(told, ours):
            found += [key for key in trusted if envelope.is_signed_by(key)]
    return list(dict.fromkeys(found))


def _is_of(told: Statement, run: Recipe) -> bool:
    runs = told.predicate.get("runs")
    if told.predicate_type != PREDICATE or not isinstance(runs, list) or _named(run) not in runs:
        return False
    return all(isinstance(one, dict) and one.get("upload") == run.upload_sha256 for one in runs)
