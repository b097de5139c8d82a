"""What commands that fetch or follow say of a result's signature."""

import ftplib
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

from construir_ftp.cli.servers import Reach, tell
from construir_ftp.client import address, evidence, history, known_keys
from construir_ftp.client.address import Address
from construir_ftp.client.connection import LOST
from construir_ftp.client.history import Sent
from construir_ftp.client.known_keys import KnownKeys
from construir_ftp.config import Config
from construir_ftp.errors import ConfigError, DamagedError, UntrustedError, one_line
from construir_ftp.jobs import sums
from construir_ftp.jobs.result import SIGNATURE, SUMS
from construir_ftp.trust import ed25519, equivalence, keys, verify
from construir_ftp.trust.keys import PublicKey
from construir_ftp.trust.verify import Proof, Revoked

T = TypeVar("T")


def known() -> KnownKeys:
    """The keys that this user knows of servers."""
    return KnownKeys(history.place())


def trusted(key: Path | None) -> list[PublicKey]:
    """The keys in a file; without one, those known of all servers. Raises ConfigError."""
    if key is None:
        return [each for server in known().every() for each in server.keys]
    try:
        text = key.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: can't be read; name a file with a public key: {error}") from error
    return keys.read(text, str(key))


def revoked(settings: Config | None = None) -> set[Revoked]:
    """The keys of nodes that a server known here, or the appliance on this computer, no longer vouches for."""
    found = {(key, each) for server in known().every() for key in server.keys for each in server.revoked}
    if settings is not None and (own := of_here(settings)):
        from construir_ftp.trust import key_place

        found |= {(key, each) for key in own for each in key_place.revoked(settings.spool_path())}
    return found


def of_here(settings: Config) -> list[PublicKey]:
    """The keys that the appliance on this computer, or `construir run`, has signed with; none where there are none."""
    try:
        # Imported here: a contributor's computer may have no spool, nor what one takes.
        from construir_ftp.trust import key_place

        return key_place.known(settings.spool_path())
    except (ImportError, AttributeError, ConfigError):
        return []


class Brought(NamedTuple):
    """What was fetched of a result by its server's list of files: the names, and whether that is to be all there is."""

    place: Path
    names: frozenset[str]
    is_all: bool


def prove(
    reach: Reach, where: Address, job_id: str, brought: Brought | None = None, named: list[PublicKey] | None = None
) -> Proof | None:
    """Prove the result of a job by the key known of its server, and say so: what was brought of it, or how it ended.

    At the first use the server's key is taken for its own; `named`, if there are any, are those to trust in its place.
    Returns nothing where the server signs none, or nothing here can check a signature. Raises UntrustedError where the
    key is another one, or a signature is missing that should be there, and DamagedError, also where the upload is
    another one than was sent from here.
    """
    if not ed25519.can_verify():
        # Looked at before anything of the server's is: nothing that it sends can bring this about.
        tell("not verified: that takes openssl, or: pip install cryptography")
        return None
    with tempfile.TemporaryDirectory(prefix="construir-") as name:
        found = Path(name)
        is_signed, trusted, bad, stated = _asked(
            reach,
            where,
            lambda ftp: (
                evidence.bring(ftp, job_id, found),
                (trusted := _keys(ftp, where) if named is None else named),
                _revoked(ftp, where, trusted),
                evidence.statements(ftp, job_id) if brought else None,
            ),
        )
        if not is_signed:
            _demand_no_key(where, trusted)
            tell(f"not verified: {where} does not sign its results")
            return None
        try:
            proof = verify.check(
                brought.place if brought else found, trusted, evidence=found, is_all=False, revoked=bad
            )
            if brought:
                _demand_signed(brought, found)
        except UntrustedError as error:
            raise (_changed(error, where, job_id) if named is None else error) from error
    _demand_job(proof, job_id)
    _demand_upload(proof, where, reach.memory.all())
    if brought and stated is not None:
        _take(brought.place, stated)
    by_node = f", by its node {proof.node}" if proof.node else ""
    tell(f"verified: signed by {proof.builder}, key {proof.key.fingerprint}{by_node}")
    return proof


def _is_at(job: Sent, where: Address) -> bool:
    """Whether it was sent to that server, as whomever."""
    there = address.parse(job.server)
    return (there.host, there.port) == (where.host, where.port)


def _take(place: Path, stated: bytes) -> None:
    """Put what others state of a result beside it; what is no statement is left alone, and told."""
    try:
        equivalence.take(place, stated)
    except DamagedError as error:
        tell(f"what the server shows as others' statements is left out: {error}")


def _demand_signed(brought: Brought, evidence: Path) -> None:
    """Raises DamagedError unless the list of files that was followed is the one that was signed."""
    listed = {*sums.parse((evidence / SUMS).read_bytes()), SUMS, SIGNATURE}
    if added := brought.names - listed:
        raise DamagedError(f"{one_line(min(added))} is no part of the result that was signed")
    if brought.is_all and (missing := listed - brought.names):
        raise DamagedError(f"{one_line(min(missing))} is part of the result that was signed, and did not come")
    for name in brought.names & {SUMS, SIGNATURE}:
        if (brought.place / name).read_bytes() != (evidence / name).read_bytes():
            raise DamagedError(f"{name} is not the one that was signed")


def _demand_job(proof: Proof, job_id: str) -> None:
    """Raises DamagedError unless what was proved is the result of this job."""
    if proof.result.id != job_id:
        raise DamagedError(f"the result of {job_id} that has come is that of another job, {proof.result.id}")


def _demand_upload(proof: Proof, where: Address, sent: Iterable[Sent]) -> None:
    """Raises DamagedError where this job was sent from here, and the result is signed as that of other bytes."""
    made_of = proof.result.upload_sha256
    for job in sent:
        if job.id == proof.result.id and job.sha256 != made_of and _is_at(job, where):
            raise DamagedError(
                f"{where} has signed a result of another upload than was sent from here: its sha256 is {made_of}, and"
                f" that of what was sent {job.sha256}"
            )


def accept(reach: Reach, where: Address, fingerprint: str) -> None:
    """Take one more key of a server for its own, as somebody has decided. Raises UntrustedError if it shows no such."""
    shown = [key for key in _asked(reach, where, known_keys.ask) if key.fingerprint == fingerprint]
    if not shown:
        raise UntrustedError(f"{where} shows no key with the fingerprint {fingerprint}")
    known().keep(where, shown)


def _asked(reach: Reach, where: Address, ask: Callable[[ftplib.FTP], T]) -> T:
    """What a session says, in as many sessions as it takes."""
    patience = reach.patience()
    patience.begin()
    while True:
        try:
            with reach.as_anyone(where).session() as ftp:
                return ask(ftp)
        except LOST as lost:
            patience.wait(lost, where)


def _keys(ftp: ftplib.FTP, where: Address) -> list[PublicKey]:
    """The keys known of a server; those that it shows, if it was never met."""
    trusted = known().of(where)
    if not trusted and (trusted := known_keys.ask(ftp)):
        known().keep(where, trusted)
        tell(f"the key of {where} is {trusted[0].fingerprint}; from now on another one is not taken for it")
    return trusted


def _revoked(ftp: ftplib.FTP, where: Address, trusted: list[PublicKey]) -> set[Revoked]:
    """What is known to be revoked, with what the server shows as that, which is kept."""
    shown = known_keys.ask_revoked(ftp)
    if shown and known().of(where):
        known().keep(where, [], shown)
    return revoked() | {(key, each) for key in trusted for each in shown}


def _demand_no_key(where: Address, trusted: list[PublicKey]) -> None:
    if trusted:
        raise UntrustedError(
            f"this result has no signature, though {where} signs its results: it is old, or not to be trusted"
        )


def _changed(error: UntrustedError, where: Address, job_id: str) -> UntrustedError:
    return UntrustedError(
        f"THE KEY OF {where} HAS CHANGED, OR SOMEBODY ELSE HAS SIGNED: {error}. Ask its operator; if they name the new"
        f" key: construir verify {job_id} --server {where} --accept {error.fingerprint}",
        error.fingerprint,
    )
