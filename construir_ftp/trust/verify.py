"""A result held against its signature, its digests and its provenance, offline.

Each byte of it counts: what is not signed, is not listed, or is not what was listed is an error. What others state of
a result stands beside it, in STATEMENTS, and counts for nothing until its signatures are proved.
"""

import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import msgspec

from construir_ftp.errors import DamagedError, MissingError, UntrustedError, one_line
from construir_ftp.jobs import result as results
from construir_ftp.jobs import sums
from construir_ftp.jobs.result import PROVENANCE, RESULT, SIGNATURE, SUMS, Result
from construir_ftp.trust import dsse, ed25519, sshsig, statement
from construir_ftp.trust.keys import PublicKey
from construir_ftp.trust.sshsig import Signature
from construir_ftp.trust.statement import Statement

# Statements that were made of the result later, each with signatures of its own.
STATEMENTS = "equivalence.intoto.jsonl"
_SIGNED_APART = (SUMS, SIGNATURE, STATEMENTS)
# More than an appliance writes: a list of twenty thousand files, and of all packages there are.
_MOST_BYTES = 64 * 2**20
_SHOWN_CHARACTERS, _MOST_NAMED = 200, 5
# A front's key, and that of a node which it no longer vouches for.
Revoked = tuple[PublicKey, PublicKey]


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What was proved: that `key` vouches for the result, which is of this job, and of which these files are here.

    Where it vouches for the key of a node, which has signed, `node` is what it calls that.
    """

    key: PublicKey
    node: str = ""
    result: Result
    provenance: Statement
    files: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def builder(self) -> str:
        """The appliance, and what kind of machine and jail it ran the job in."""
        told = self.provenance.predicate
        return one_line(told["runDetails"]["builder"]["id"])[:_SHOWN_CHARACTERS]


def check(
    place: Path,
    trusted: Sequence[PublicKey],
    *,
    evidence: Path | None = None,
    is_all: bool = True,
    revoked: Collection[Revoked] = (),
) -> Proof:
    """Prove the result in the directory `place` by one of these keys, or one that it has certified and not `revoked`.

    What is signed is looked for in `evidence`, if that is another directory. Unless `is_all`, files may be missing, and
    there may be others, which are not looked at. Raises UntrustedError where no such key has signed it, DamagedError
    where anything is not as it was signed, MissingError where there is nothing to be proved.
    """
    evidence = evidence or place
    listed, signature, key = _signed_list(evidence, trusted, revoked)
    there = set(_files(place, is_all=is_all)) - set(_SIGNED_APART)
    missing, added = tuple(sorted(listed.keys() - there)), sorted(there - listed.keys())
    # First what is missing: beside it may be the part of it that has come so far.
    if is_all and missing:
        raise DamagedError(f"{_shown(missing)} is missing; fetch it again, or add --partial")
    if is_all and added:
        raise DamagedError(f"{_shown(added)} is no part of the result that was signed")
    for path, name in (*((place / name, name) for name in sorted(there - set(added))), *_told_in(evidence)):
        if _sha256(path) != listed.get(name):
            raise DamagedError(f"{_shown([name])} is not what was signed")
    told = _provenance(evidence, signature.key)
    result = _result(evidence)
    _compare(told, result, listed)
    node = one_line(signature.certificate.name)[:_SHOWN_CHARACTERS] if signature.certificate else ""
    here = tuple(sorted(there - set(added)))
    return Proof(key=key, node=node, result=result, provenance=told, files=here, missing=missing)


def _told_in(evidence: Path) -> list[tuple[Path, str]]:
    return [(evidence / name, name) for name in (RESULT, PROVENANCE)]


def is_signed(place: Path) -> bool:
    """Whether the result in a directory says that it is signed."""
    return os.path.lexists(place / SIGNATURE)


def signer(place: Path) -> PublicKey:
    """The key that the result in a directory says vouches for it. Raises MissingError, DamagedError."""
    return _vouching(sshsig.parse(content(place / SIGNATURE)))


def content(path: Path) -> bytes:
    """A file of a stranger's: regular, and not long. Raises MissingError, DamagedError."""
    if not path.exists():
        raise MissingError(f"there is no {path.name}, without which nothing is proved")
    if not stat.S_ISREG(path.lstat().st_mode) or path.stat().st_size > _MOST_BYTES:
        raise DamagedError(f"{path.name} is no file of a result's")
    return path.read_bytes()


def _signed_list(
    place: Path, trusted: Sequence[PublicKey], revoked: Collection[Revoked]
) -> tuple[dict[str, str], Signature, PublicKey]:
    """What is signed, the signature, and the trusted key that it rests on."""
    listed, signature = content(place / SUMS), sshsig.parse(content(place / SIGNATURE))
    key = _vouching(signature)
    if (key, signature.key) in revoked:
        fingerprint = signature.key.fingerprint
        node = one_line(signature.certificate.name)[:_SHOWN_CHARACTERS] if signature.certificate else ""
        raise UntrustedError(
            f"it is signed by node {node}, {fingerprint}, whose key was revoked; have the job run again", fingerprint
        )
    if key not in trusted:
        known = ", ".join(key.fingerprint for key in trusted[:_MOST_NAMED])
        raise UntrustedError(
            f"it is signed by {key.fingerprint}, which is not known here"
            + (f"; known: {known}" if known else "; name a key that you have from its operator: --key FILE"),
            key.fingerprint,
        )
    if not ed25519.verify(signature.key, sshsig.signed_bytes(listed), signature.raw):
        raise DamagedError(f"{SUMS} is not what {signature.key.fingerprint} has signed")
    return sums.parse(listed), signature, key


def _vouching(signature: Signature) -> PublicKey:
    """Which key has to be trusted: the signer's, or that which has certified it."""
    certificate = signature.certificate
    return certificate.authority if certificate is not None and certificate.is_valid() else signature.key


def _provenance(place: Path, key: PublicKey) -> Statement:
    envelope = dsse.only(content(place / PROVENANCE), PROVENANCE)
    if not envelope.is_signed_by(key):
        raise DamagedError(f"{PROVENANCE} is not signed by {key.fingerprint}, as the rest of it is")
    return statement.read(envelope, PROVENANCE)


def _result(place: Path) -> Result:
    try:
        return results.decode(content(place / RESULT))
    except msgspec.MsgspecError as error:
        raise DamagedError(f"{RESULT}: {error}") from error


def _compare(told: Statement, result: Result, listed: dict[str, str]) -> None:
    """Raises DamagedError unless the provenance is of this result, and of these files."""
    try:
        details, definition = told.predicate["runDetails"], told.predicate["buildDefinition"]
        byproducts = {each["name"]: each["digest"]["sha256"] for each in details["byproducts"]}
        run, job = details["metadata"]["invocationId"], definition["externalParameters"]["job"]
        upload, status, _ = job["sha256"], told.predicate["construir_status"], details["builder"]["id"]
    except (KeyError, TypeError) as error:
        raise DamagedError(f"{PROVENANCE} lacks {error}, which provenance of a job has") from error
    told_of = {**told.digests(), **byproducts, PROVENANCE: listed.get(PROVENANCE)}
    times = len(told.subject) + len(details["byproducts"]) + 1
    wrong = {
        "its kind": told.predicate_type != statement.PREDICATE,
        # Each once: of a file that is told of twice, with two digests, another program may take the other one.
        "its files": told_of != listed or times != len(listed),
        "its job": run != f"{result.id}/{result.attempt}",
        "its upload": upload != result.upload_sha256,
        "its status": status != result.status,
    }
    if any(wrong.values()):
        raise DamagedError(
            f"{PROVENANCE} is of another result: {', '.join(what for what, is_so in wrong.items() if is_so)}"
        )


def _files(place: Path, *, is_all: bool) -> Iterator[str]:
    """The names of all that is in a directory and below, but for directories themselves.

    Raises DamagedError if it `is_all`, and one of them can't be looked into: its mode, or the length of its path, would
    hide what was added. The stack is our own, since a stranger's directories may be nested as deep as they like.
    """
    waiting = [""]
    while waiting:
        above = waiting.pop()
        try:
            with os.scandir(place / above) as entries:
                found = [(entry.is_dir(follow_symlinks=False), f"{above}{entry.name}") for entry in entries]
        except OSError as error:
            if is_all:
                raise DamagedError(f"{_shown([above or place.name])} can't be looked into: {error.strerror}") from error
            continue
        waiting += [f"{name}/" for is_directory, name in found if is_directory]
        yield from (name for is_directory, name in found if not is_directory)


def _sha256(path: Path) -> str:
    if not path.exists() or not stat.S_ISREG(path.lstat().st_mode):
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shown(names: Sequence[str]) -> str:
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return one_line(names[0])[:_SHOWN_CHARACTERS] + more
