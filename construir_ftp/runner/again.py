"""A job that has a result, to be run here once more: on the same base image, with the same layers and results.

What is here is compared by digest. A base image that is missing is built again, of the same packages. A layer that is
missing is brought from a server; one of packages that can't be is made again, of the same packages in the same
versions. Its bytes are others then, since installing notes the time, and that is told.
"""

import functools
import logging
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec

from construir_ftp import files, schema
from construir_ftp.config import Config
from construir_ftp.errors import ConstruirError, MissingError, RefusedError, UsageError
from construir_ftp.image import baseimage, build, past, versions
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs import request
from construir_ftp.jobs.result import SUMS
from construir_ftp.jobs.spool import Spool
from construir_ftp.jobs.sums import parse
from construir_ftp.layers.build import Workshop
from construir_ftp.layers.resolver import INSTALLING, Offer
from construir_ftp.layers.store import IMAGE, MANIFEST, Layer, LayerManifest, Store
from construir_ftp.machine import accelerator
from construir_ftp.machine.shape import Shape
from construir_ftp.runner import worker
from construir_ftp.trust.recipe import Recipe
from construir_ftp.trust.statement import Resource

log = logging.getLogger(__name__)

_MOST_NAMED = 5
_BRING_LAYER = "if the appliance that has run the job still has it, name that: --server"

Tell = Callable[[str], None]
# Brings the files of a layer, by its name, into a directory; whether it could.
Bring = Callable[[str, Path], bool]


def _nowhere(_name: str, _place: Path) -> bool:
    return False


class Again(msgspec.Struct, frozen=True):
    """What a job is run on and by, so that it is the same: `asks` is its construir.toml, with all it needs pinned."""

    base: BaseImage
    asks: str


def prepare(
    recipe: Recipe,
    config: Config,
    stop: socket.socket,
    tell: Tell,
    *,
    from_upload: bool,
    bring: Bring = _nowhere,
    show: worker.Tell = lambda _doing, _progress: None,
) -> Again:
    """Have all here that a job ran on, layers brought or made if they have to be. `tell` is told what is not the same.

    `show` is called with what is waited for and how far that is, and with nothing once nothing is. `from_upload` is
    whether it is run as it began. Raises ConstruirError, which says what is missing, and what to do.
    """
    if recipe.base is None:
        raise UsageError(f"{recipe.run} had no machine, so there is nothing to run again")
    base = _base(recipe.base, config, tell)
    offer = Offer.of(Spool.prepare(config.spool_path()), config)
    _demand_results(recipe.results, offer.spool)
    for wanted in recipe.layers:
        if offer.store().find(wanted.name) is None:
            _bring(wanted, offer.store(), base, bring, {layer.name for layer in recipe.layers})
    make = functools.partial(_made, offer=offer, base=base, config=config, stop=stop, tell=tell, show=show)
    found = [_layer(wanted, offer, make, tell) for wanted in recipe.layers]
    show("", "")
    below = {name for layer in found for name in layer.manifest.under}
    layers = tuple(layer.name for layer in found if layer.name not in below)
    wishes = request.read(recipe.wishes)
    needs = request.Dependencies(results=wishes.dependencies.results, layers=layers)
    # What ended has been given its space already.
    space = wishes.space if from_upload else None
    return Again(base, request.render(msgspec.structs.replace(wishes, base="", space=space, dependencies=needs)))


def demand_upload(upload: Path, recipe: Recipe) -> None:
    """Raises UsageError unless this file is what was uploaded, MissingError where there is none."""
    if upload.is_dir():
        raise UsageError(f"{upload} is a directory; pack it: construir pack {upload}, and name the file that makes")
    if not upload.exists():
        raise MissingError(f"there is no {upload}; name the file that was uploaded: --upload FILE")
    if not upload.is_file() or files.sha256(upload) != recipe.upload_sha256:
        raise UsageError(f"{upload} is not what was uploaded for {recipe.run}: that had sha256 {recipe.upload_sha256}")


def _base(wanted: Resource, config: Config, tell: Tell) -> BaseImage:
    """The base image of that digest, under any name, live or not, proved; one that is not here is built again."""
    images, digest = config.images_path(), f"sha256:{_sha256(wanted)}"
    older = (version for name in versions.names(images) for version in versions.every(images, name))
    for base in (*baseimage.every(images), *older):
        if base.manifest.digest() == digest:
            return baseimage.prove(base)
    was = past.read(wanted.annotations, wanted.name, digest)
    recipe = past.recipe_of(was, wanted.name, digest, config.images)
    where = f"the archive as it was at {recipe.snapshot}" if recipe.snapshot else "today's archive"
    tell(f"base image {wanted.name}, {digest}, is not here: building it again, of the same packages, from {where}")
    return build.build_again(images, digest, was, recipe, tell)


def _demand_results(wanted: tuple[Resource, ...], spool: Spool) -> None:
    for one in wanted:
        try:
            digests = parse((spool.state("done") / one.name / SUMS).read_bytes()).values()
        except (OSError, ConstruirError):
            digests = {}.values()
        if _sha256(one) not in digests:
            raise ConstruirError(f"the result {one.name}, which the job needs as it was, is not here")


def _bring(wanted: Resource, store: Store, base: BaseImage, bring: Bring, known: set[str]) -> None:
    """Put what a server shows as a layer into the store, if it is the very one."""
    with store.draft() as draft:
        if not bring(wanted.name, draft) or files.sha256(draft / IMAGE) != _sha256(wanted):
            return
        try:
            manifest = schema.from_json((draft / MANIFEST).read_bytes(), LayerManifest)
        except msgspec.MsgspecError as error:
            raise ConstruirError(f"layer {wanted.name}: what the server says of it makes no sense: {error}") from error
        told = (manifest.name, manifest.sha256, manifest.base)
        if told != (wanted.name, _sha256(wanted), base.manifest.digest()) or not known.issuperset(manifest.under):
            raise ConstruirError(f"layer {wanted.name}: what the server says of it is not what the job had")
        (draft / MANIFEST).unlink()
        store.put(draft, manifest)


def _layer(wanted: Resource, offer: Offer, make: Callable[[Resource], Layer], tell: Tell) -> Layer:
    found = offer.store().find(wanted.name) or make(wanted)
    if found.manifest.sha256 == _sha256(wanted) and files.sha256(found.image) == _sha256(wanted):
        return found
    if found.manifest.kind != "packages":
        raise ConstruirError(f"layer {wanted.name} is another one here than where the job ran")
    tell(f"layer {wanted.name} has the same packages here, installed at another time")
    return found


def _made(
    wanted: Resource,
    *,
    offer: Offer,
    base: BaseImage,
    config: Config,
    stop: socket.socket,
    tell: Tell,
    show: worker.Tell,
) -> Layer:
    """A layer of packages, installed again in the versions it had."""
    contents = [str(label) for label in wanted.annotations.get("contents", ())]
    if not all("=" in label for label in contents) or not contents:
        raise ConstruirError(
            f"layer {wanted.name} is not here, and was published where the job ran: publish it here, too"
        )
    tell(f"installing the packages of layer {wanted.name} again")
    archive = offer.archive(base, stop)
    try:
        plan = offer.plan(archive, tuple(_name_and_version(label) for label in contents))
    except RefusedError as error:
        raise ConstruirError(f"layer {wanted.name} can't be made again: {error}; {_BRING_LAYER}") from error
    if others := sorted(set(plan.versions()) ^ set(contents)):
        named = ", ".join(others[:_MOST_NAMED])
        raise ConstruirError(f"layer {wanted.name}: its packages come to others today: {named}; {_BRING_LAYER}")
    choice = accelerator.choose(config.machine, config.images_path(), base)
    shape = Shape.of(config.machine, base, choice.accelerator, offer.max_image_bytes)
    at_work = functools.partial(show, INSTALLING)
    return Workshop(offer.store(), archive, shape, config.layers.timeout, stop, at_work).ensure(plan)


def _name_and_version(label: str) -> str:
    """Of name:architecture=version, for apt."""
    name, _, version = label.partition("=")
    return f"{name.partition(':')[0]}={version}"


def _sha256(resource: Resource) -> str:
    return resource.digest.sha256 if resource.digest else ""
