"""`construir rerun`, `rebuild` and `cosign`: results made once more, and held against each other."""

import functools
from contextlib import closing
from pathlib import Path

import click

from construir_ftp.appliance import supervisor
from construir_ftp.cli import trust
from construir_ftp.cli.options import PATH, configured, printable
from construir_ftp.cli.output import Clock
from construir_ftp.cli.run import show_logs
from construir_ftp.cli.servers import Reach, reaching, server_option, tell
from construir_ftp.client import layers
from construir_ftp.client.connection import plainly
from construir_ftp.config import Config
from construir_ftp.errors import MissingError, UnreachableError, UntrustedError, UsageError, exit_code_of
from construir_ftp.jobs.result import PROVENANCE, UPLOADED, Result
from construir_ftp.jobs.spool import Spool
from construir_ftp.layers import store
from construir_ftp.runner import again, diffoscope, local
from construir_ftp.trust import dsse, equivalence, recipe, statement, verify
from construir_ftp.trust.dsse import Envelope
from construir_ftp.trust.keys import PublicKey
from construir_ftp.trust.recipe import Recipe
from construir_ftp.trust.seal import Seal

_key_option = click.option("--key", type=PATH, help="File of the public keys to trust, beside those known here.")
_upload_option = click.option("--upload", type=PATH, help="What was uploaded; needless if the result has it.")
# Of artifacts that differ; each may take diffoscope minutes.
_MOST_LOOKED_INTO = 10
_LAYER_FILES = (store.IMAGE, store.MANIFEST)
_output_option = click.option(
    "-o", "output", type=PATH, help="Directory for the new result; named by its id if not given."
)


@click.command("rerun")
@click.argument("what", metavar="RESULT", type=PATH)
@_output_option
@_upload_option
@server_option
@configured
@reaching
def rerun_command(settings: Config, reach: Reach, what: Path, output: Path | None, upload: Path | None) -> int:
    """Run the job of RESULT, a directory from done/ of any appliance, here once more; exit as run.sh does.

    It gets the same base image, layers and results, all compared by digest, and as much of a machine. Layers that are
    not here are brought from the server, if one is named, or installed again. It is run as it
    began where its upload is at hand, in the result or by --upload; else as it ended, from the image in the result.
    A result that was changed since it was signed is not run.
    """
    place = _directory(what, settings)
    wanted = recipe.of(_unchanged(place, settings))
    upload = upload or _kept_upload(place)
    if upload is not None:
        again.demand_upload(upload, wanted)
    tell(f"running {wanted.run} again, as it {'began' if upload else 'ended'}")
    new, result = _run(reach, wanted, upload or _image(place), output, settings, from_upload=upload is not None)
    show_logs(new)
    tell(f"{result.status}: {result.reason}; everything is in {new}")
    return exit_code_of(result.status, result.exit_code)


@click.command("rebuild")
@click.argument("what", metavar="RESULT_OR_PROVENANCE", type=PATH)
@_output_option
@_upload_option
@_key_option
@server_option
@configured
@reaching
def rebuild_command(
    settings: Config, reach: Reach, what: Path, output: Path | None, upload: Path | None, key: Path | None
) -> int:
    """Build once more what an appliance has built, and say which artifacts are the same, byte for byte; 1 if any isn't.

    RESULT is a directory from done/, or the provenance of one, of any appliance. Of the artifacts that are the same a
    statement is signed with the key here, and put beside it: equivalence.intoto.jsonl. Needs the upload.
    """
    place = what.parent if what.is_file() else _directory(what, settings)
    wanted = recipe.of(_proved(what, place, settings, key))
    upload = upload or _kept_upload(place)
    if upload is None:
        raise UsageError(f"{place} does not have the upload; name it: --upload FILE")
    again.demand_upload(upload, wanted)
    if not wanted.made:
        raise UsageError(f"{wanted.run} has no artifacts, which its outputs name: there is nothing to compare")
    seal = _seal(settings)  # before hours of a build, for which nothing could be signed
    new, result = _run(reach, wanted, upload, output, settings, from_upload=True)
    tell(f"{result.status}: {result.reason}; everything is in {new}")
    runs = [wanted, recipe.of(_read(new / PROVENANCE))]
    found = equivalence.compare(runs)
    _tell_differences(found, place, new)
    if found.same:
        equivalence.sign(place, seal, equivalence.stated(runs, found))
        tell(f"signed a statement of the {len(found.same)} that are the same: {place / verify.STATEMENTS}")
    return int(bool(found.different))


@click.command("cosign")
@click.argument("what", metavar="RESULT", type=PATH)
@click.option("--with", "others", type=PATH, multiple=True, required=True, help="Another one's RESULT; several times.")
@_key_option
@configured
def cosign_command(settings: Config, what: Path, others: tuple[Path, ...], key: Path | None) -> int:
    """State and sign which artifacts of RESULT, made here, other appliances have made alike; 1 if any differs.

    Each result is verified before. Whoever else signs the same statement adds a signature to it: `construir verify
    --quorum 2` then asks for two appliances that vouch for every artifact.
    """
    places = [_directory(one, settings) for one in (what, *others)]
    seal = _seal(settings)
    mine, *theirs = [verify.check(place, _trusted(settings, key), revoked=trust.revoked(settings)) for place in places]
    if mine.key != seal.key.public:
        raise UntrustedError(f"{places[0]} was not made here, so it is not for this key to sign", mine.key.fingerprint)
    runs = [recipe.of(proof.provenance) for proof in (mine, *theirs)]
    if len({run.upload_sha256 for run in runs}) > 1:
        raise UsageError("these are results of different uploads")
    found = equivalence.compare(runs)
    _tell_differences(found, places[0], places[1])
    signed = equivalence.sign(places[0], seal, equivalence.stated(runs, found), places[1:])
    tell(f"{places[0] / verify.STATEMENTS}: {len(signed.signatures)} of {len(runs)} have signed")
    return int(bool(found.different))


def _run(
    reach: Reach, wanted: Recipe, source: Path, output: Path | None, settings: Config, *, from_upload: bool
) -> tuple[Path, Result]:
    with supervisor.stop_signal() as stop, closing(Clock()) as clock:
        bring = functools.partial(_bring_layer, reach, settings)
        pinned = again.prepare(wanted, settings, stop, tell, from_upload=from_upload, bring=bring, show=clock.show)
        new, result = local.run(source, output, settings, stop, pinned.base, asks=pinned.asks, show=clock.show)
    if (new / PROVENANCE).exists():
        for difference in wanted.other_machine(recipe.of(_read(new / PROVENANCE))):
            tell(f"the machine was not the same, {difference}")
    return new, result


def _bring_layer(reach: Reach, settings: Config, name: str, place: Path) -> bool:
    """From the server that is named, if one is."""
    if reach.is_nowhere(""):
        return False
    where = reach.address()
    tell(f"looking for layer {name} at {where}")
    try:
        with plainly(where), reach.as_anyone(where).session() as ftp:
            return layers.bring(ftp, name, _LAYER_FILES, place, int(settings.layers.max_total))
    except UnreachableError as error:
        tell(str(error))
        return False


def _seal(settings: Config) -> Seal:
    return Seal.of(Spool.prepare(settings.spool_path()).path, settings.trust)


def _trusted(settings: Config, key: Path | None) -> list[PublicKey]:
    """Those of servers met, of the appliance here, and of the file."""
    return [*trust.trusted(None), *trust.of_here(settings), *(trust.trusted(key) if key else ())]


def _directory(what: Path, settings: Config) -> Path:
    """A result's directory, or the id of a job in done/ here."""
    done = settings.spool_path() / "done" / what.name
    place = what if what.is_dir() else done
    if not (place / PROVENANCE).exists():
        kind = UsageError if what.exists() else MissingError
        raise kind(f"{printable(str(what))} is no directory of a signed result, and no id of one in {done.parent}")
    return place


def _read(path: Path) -> statement.Statement:
    return statement.read(_envelope(path), PROVENANCE)


def _envelope(path: Path) -> Envelope:
    return dsse.only(verify.content(path), path.name)


def _unchanged(place: Path, settings: Config) -> statement.Statement:
    """The provenance of a result that is as it was signed, by whomever. Raises DamagedError, MissingError."""
    signer = verify.signer(place)
    proof = verify.check(place, [signer], is_all=False)
    if signer not in _trusted(settings, None):
        tell(f"{place} is signed by {signer.fingerprint}, which is not known here")
    return proof.provenance


def _proved(what: Path, place: Path, settings: Config, key: Path | None) -> statement.Statement:
    """The provenance, of a whole result or alone. Raises UntrustedError, DamagedError."""
    known = _trusted(settings, key)
    if not what.is_file():
        return verify.check(place, known, revoked=trust.revoked(settings)).provenance
    envelope = _envelope(what)
    if not any(envelope.is_signed_by(each) for each in known):
        raise UntrustedError(f"{what} is not signed by a key that is known here; name one: --key FILE")
    return statement.read(envelope, PROVENANCE)


def _kept_upload(place: Path) -> Path | None:
    return next((path for path in (place / UPLOADED).glob("*") if path.is_file()), None)


def _image(place: Path) -> Path:
    result = local.result_in(place)
    if result.image is None or not (place / Path(result.image).name).is_file():
        raise UsageError(f"{place} has no image to run; name what was uploaded: --upload FILE")
    return place / Path(result.image).name


def _tell_differences(found: equivalence.Comparison, old: Path, new: Path) -> None:
    for name in found.same:
        click.echo(f"same: {printable(name)}")
    for name in found.different:
        click.echo(f"different: {printable(name)}")
    if found.different and not diffoscope.is_installed():
        tell(f"diffoscope would say in what; it is in Debian's package {diffoscope.PACKAGE}")
        return
    for name in found.different[:_MOST_LOOKED_INTO]:
        for line in diffoscope.lines(old / name, new / name):
            click.echo(printable(f"  {line}"))
    if len(found.different) > _MOST_LOOKED_INTO:
        tell(f"diffoscope has looked into the first {_MOST_LOOKED_INTO} of these {len(found.different)}")
