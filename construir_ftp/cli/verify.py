"""`construir verify`: what is proved of a result, and what isn't."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import click

from construir_ftp.cli import trust
from construir_ftp.cli.options import PATH, configured, printable
from construir_ftp.cli.results import bring
from construir_ftp.cli.servers import Reach, reaching, server_option, tell
from construir_ftp.client import address, jobs
from construir_ftp.client.address import Address
from construir_ftp.client.connection import plainly
from construir_ftp.config import Config
from construir_ftp.errors import MissingError, UntrustedError, UsageError
from construir_ftp.jobs.result import SUMS
from construir_ftp.pack.detect import RUN
from construir_ftp.trust import equivalence, verify
from construir_ftp.trust.keys import PublicKey
from construir_ftp.trust.verify import Proof, Revoked

_DONE = "/done/"
_NOT_PROVED = (
    "that the appliance did as it says: whoever runs it could sign anything",
    "that the upload was made of the sources that you think; compare its digest with your own",
)


@click.command("verify")
@click.argument("what", metavar="DIR_OR_URL_OR_ID")
@click.option("--key", type=PATH, help="File of the public keys to trust: construir.pub, or allowed_signers.")
@click.option(
    "--quorum", type=click.IntRange(1), default=1, help="So many appliances have to vouch for every artifact."
)
@click.option("--accept", metavar="FINGERPRINT", help="Take the server's key with this fingerprint for its own.")
@click.option("--partial", is_flag=True, help="Let files of a directory be missing, as after fetch --only.")
@server_option
@configured
@reaching
def verify_command(
    settings: Config, reach: Reach, what: str, key: Path | None, quorum: int, accept: str | None, *, partial: bool
) -> None:
    """Say whether a result is as an appliance has signed it: a fetched directory, ftp://HOST/done/ID, or a job's ID.

    Without --key the keys are those that were met when results were fetched; of a directory, this computer's own, too.
    A directory is verified offline. With --quorum others have to have made the same artifacts: see construir rebuild
    and cosign.
    """
    place = Path(what)
    if place.is_dir():
        _demand_result(place)
        own = [] if key else trust.of_here(settings)
        trusted = [*trust.trusted(key), *own]
        revoked = trust.revoked(settings)
        proof = _proved(place, trusted, revoked, is_key_named=key is not None, partial=partial)
        _tell(proof, _whose(proof, key, own), _vouching(place, proof, trusted, own, quorum), partial=partial)
        return
    if place.exists() and (place.suffix or "/" in what):  # else it may be a job's name, too
        raise UsageError(f"{printable(what)} is no directory; name that of a result, or a job on a server by its ID")
    where, job_id = _on_server(reach, what)
    if accept is not None:
        trust.accept(reach, where, accept)
    with tempfile.TemporaryDirectory(prefix="construir-") as name:
        named = trust.trusted(key) if key else None
        proved = bring(reach, where, job_id, Path(name), (), named)
        known = trust.known().of(where) if named is None else named
        # Where that has proved nothing, for want of a signature or of what checks one, this says so.
        proof = proved or verify.check(Path(name), known, revoked=trust.revoked())
        # Others' statements beside it count by the keys that are known of other servers.
        every = [*known, *(trust.trusted(None) if named is None else ())]
        _tell(proof, _whose(proof, key, []), _vouching(Path(name), proof, every, [], quorum))


def _demand_result(place: Path) -> None:
    """Raises MissingError unless a directory has what a result has."""
    if not (place / SUMS).exists():
        what = "a job, and no result" if (place / RUN).exists() else "no result"
        raise MissingError(
            f"the directory {printable(str(place))} is {what}: it has no {SUMS}; name one that construir fetch or run"
            " has made, or a job on a server by its ID"
        )


def _proved(
    place: Path, trusted: list[PublicKey], revoked: set[Revoked], *, is_key_named: bool, partial: bool
) -> Proof:
    """A directory proved. Raises UntrustedError, which says how another key is named, DamagedError, MissingError."""
    try:
        return verify.check(place, trusted, is_all=not partial, revoked=revoked)
    except UntrustedError as error:
        if is_key_named or not trusted:
            raise
        cure = "name a key that you have from its operator: --key FILE"
        raise UntrustedError(f"{error}; {cure}", error.fingerprint) from error


def _on_server(reach: Reach, what: str) -> tuple[Address, str]:
    """The server, and the id of the job there, that are meant. Raises UsageError, MissingError, ConfigError."""
    parts = urlsplit(what)
    if parts.scheme:
        if not parts.path.startswith(_DONE) or not parts.path.strip("/").count("/") == 1:
            raise UsageError(f"{printable(what)} is not the address of a result: ftp://HOST:PORT/done/ID")
        where = address.parse(urlunsplit(parts._replace(path="")))
        return where, parts.path.strip("/").partition("/")[2]
    if reach.is_nowhere(what):
        raise MissingError(
            f"there is no directory {printable(what)} here, and no server is named; set CONSTRUIR_SERVER"
        )
    where = reach.address(what)
    with plainly(where), reach.as_anyone(where).session() as ftp:
        return where, jobs.resolve(ftp, what, reach.memory, tell=tell)


def _vouching(place: Path, proof: Proof, known: list[PublicKey], own: list[PublicKey], quorum: int) -> list[PublicKey]:
    """Who else vouches for the artifacts, each appliance once. Raises UntrustedError if those are too few."""
    appliances = [own, *(server.keys for server in trust.known().every())]
    found = equivalence.voices(equivalence.vouching(place, proof, known), appliances)
    if len(found) < quorum:
        raise UntrustedError(f"{len(found)} of the appliances known here vouch for every artifact, and not {quorum}")
    return found[1:]


def _whose(proof: Proof, key: Path | None, own: list[PublicKey]) -> str:
    if key is not None:
        return f"a key in {key}"
    if proof.key in own:
        return "this computer's own key"
    servers = [server.server for server in trust.known().every() if proof.key in server.keys]
    return f"known here as the key of {', '.join(servers)}"


def _tell(proof: Proof, whose: str, others: list[PublicKey], *, partial: bool = False) -> None:
    """All of it once it is known; who vouches beside the signer comes last."""
    for line in _lines(proof, whose, partial=partial):
        click.echo(printable(line))
    for key in others:
        click.echo(f"proved: {key.fingerprint} vouches for every artifact, too")


def _extent(proof: Proof, *, partial: bool) -> str:
    if partial:
        here, every = len(proof.files), len(proof.files) + len(proof.missing)
        return f"{here} of its {every} files are here, and are what was signed; what else is here was not looked at"
    return f"its {len(proof.files)} files are what was signed, and none is missing or added"


def _lines(proof: Proof, whose: str, *, partial: bool) -> Iterator[str]:
    result, base = proof.result, proof.result.base_image
    yield f"{result.id}: {result.status}{f': {result.reason}' if result.reason else ''}"
    signer = f"node {proof.node}, certified by {proof.key.fingerprint}" if proof.node else proof.key.fingerprint
    yield f"proved: it is signed by {signer}, {whose}"
    yield f"proved: {_extent(proof, partial=partial)}"
    yield f"said by {proof.builder}:"
    yield f"  the upload had sha256 {result.upload_sha256}"
    yield from (f"  it is a Debian source, {signer.words()}" for signer in result.source_signers)
    if base is not None:
        yield f"  it ran on base image {base.name}, {base.digest}"
    if result.environment is not None:
        yield f"  its machine was {result.environment.engine}; the jail: {result.environment.jail}"
    for text in _NOT_PROVED:
        yield f"not proved: {text}"
