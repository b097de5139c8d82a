"""`construir layer`: what jobs can depend on."""

from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import PurePosixPath

import click
import msgspec
from rich.table import Table

from construir_ftp.cli.options import (
    Commands,
    as_json_option,
    configured,
    print_gone,
    print_json,
    printable,
)
from construir_ftp.cli.output import Clock
from construir_ftp.cli.tables import print_table
from construir_ftp.config import Config
from construir_ftp.errors import UsageError
from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs.job import read_result
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.layers import gc, publish
from construir_ftp.layers.build import InstallationError, Workshop
from construir_ftp.layers.resolver import Offer
from construir_ftp.layers.store import Layer, Store, versionless
from construir_ftp.machine import accelerator
from construir_ftp.machine.disks import MOST_READ_ONLY
from construir_ftp.machine.shape import Shape


@click.group("layer", cls=Commands)
def layer_group() -> None:
    """Layers: Debian packages and published results that jobs can depend on."""


def _store(settings: Config) -> Store:
    return Store(Spool.find(settings.spool_path()).state("layers"))


class _Told(msgspec.Struct):
    """A layer as --json tells of it."""

    manifest: dict[str, object]
    last_used: datetime
    current: bool


def _is_current(store: Store, layer: Layer) -> bool:
    """Whether jobs get it by the name without the version."""
    return store.find(versionless(layer.name)) == layer


def _told(store: Store, layer: Layer) -> _Told:
    return _Told(msgspec.to_builtins(layer.manifest), layer.last_used(), _is_current(store, layer))


@layer_group.command("list")
@as_json_option
@configured
def layer_list(settings: Config, as_json: bool) -> None:
    """Print what layers there are.

    Of a published one, an asterisk marks the version that jobs get.
    """
    store = _store(settings)
    found = store.every()
    if as_json:
        print_json([_told(store, layer) for layer in found])
        return
    table = Table("name", "", "MiB", "last used", "digest", box=None)
    for layer in found:
        table.add_row(
            layer.name,
            "*" if "@" in layer.name and _is_current(store, layer) else "",
            f"{layer.manifest.bytes / 2**20:.1f}",
            f"{layer.last_used():%Y-%m-%d}",
            layer.manifest.sha256.removeprefix("sha256:")[:12],
        )
    nothing = "there are no layers yet; a job that asks for packages has one made"
    print_table(table, ["contents", *map(_contents, found)], nothing)


def _contents(layer: Layer) -> str:
    """What was asked for, and how many packages that came to; else what it was published from."""
    contents, asked = layer.manifest.contents, layer.manifest.asked
    if layer.manifest.kind == "published":
        return contents[0]
    count = f"{len(contents)} package{'' if len(contents) == 1 else 's'}"
    return f"{' '.join(asked)} ({count})" if asked else count


def _named(store: Store, word: str) -> Layer:
    """The layer of this name, or the only one whose name begins so. Raises UsageError."""
    if word and (layer := store.find(word)):
        return layer
    found = [layer for layer in store.every() if word and layer.name.startswith(word)]
    if not found:
        raise UsageError(f"there is no layer {word!a}; see them all with: construir layer list")
    if len(found) > 1:
        raise UsageError(f"{word!a} may be any of {', '.join(layer.name for layer in found[-5:])}; say which")
    return found[0]


@layer_group.command("show")
@click.argument("name")
@as_json_option
@configured
def layer_show(settings: Config, name: str, as_json: bool) -> None:
    """Print what is known of the layer NAME; the beginning of its name does, if no other's begins so."""
    store = _store(settings)
    layer = _named(store, name)
    if as_json:
        print_json(_told(store, layer))
        return
    manifest = layer.manifest
    click.echo(f"{layer.name}: {manifest.kind}, {manifest.architecture}, {manifest.sha256}")
    click.echo(
        f"{manifest.bytes} bytes, {manifest.installed_bytes} installed; last used {layer.last_used():%Y-%m-%d %H:%M}"
    )
    if manifest.asked:
        click.echo(f"asked for: {' '.join(manifest.asked)}")
    for below in manifest.under:
        click.echo(f"on {below}")
    for content in manifest.contents:
        click.echo(content)


def _shape(settings: Config, base: BaseImage) -> Shape:
    chosen = accelerator.choose(settings.machine, settings.images_path(), base).accelerator
    return Shape.of(settings.machine, base, chosen, int(settings.gate.max_image), read_only_disks=MOST_READ_ONLY)


@layer_group.command("build")
@click.argument("packages", nargs=-1, required=True)
@click.option("--base", "base_name", help="Base image to make it for; the default one unless given.")
@configured
def layer_build(settings: Config, packages: tuple[str, ...], base_name: str | None) -> None:
    """Install PACKAGES into a layer, before a job asks for them.

    Jobs get it that ask for exactly these PACKAGES.
    """
    offer = Offer.of(Spool.find(settings.spool_path()), settings)
    base = baseimage.find(settings.images_path(), base_name or settings.images.default)
    archive = offer.archive(base)
    plan = offer.plan(archive, packages)
    if not plan.packages:
        click.echo(f"{base.name} has all of them already: no layer is needed")
        return
    shape, timeout_s = _shape(settings, base), settings.layers.timeout
    try:
        with closing(Clock()) as clock:
            at_work = partial(clock.show, f"installing {len(plan.packages)} packages")
            layer = Workshop(offer.store(), archive, shape, timeout_s, at_work=at_work).ensure(plan)
    except InstallationError as error:
        for line in error.log.decode(errors="replace").splitlines():
            click.echo(printable(line), err=True)
        raise
    click.echo(f"{layer.name} {layer.manifest.sha256}")


@layer_group.command("publish")
@click.argument("job_id", metavar="ID")
@click.option(
    "--path",
    "directory",
    metavar="DIR",
    type=PurePosixPath,
    help="Directory in the result; the whole image unless given.",
)
@click.argument("name")
@configured
def layer_publish(settings: Config, job_id: str, directory: PurePosixPath | None, name: str) -> None:
    """Make the layer NAME of what the finished job ID left.

    Jobs that ask for it find its /usr at /usr, or DIR/usr with --path DIR. Publishing NAME again makes the new version
    the one that jobs get; the ones before stay as NAME@VERSION.
    """
    spool = Spool.find(settings.spool_path())
    if job_id not in spool.names("done"):
        raise UsageError(f"there is no result {job_id!a} in {spool.state('done')}")
    job = Job(spool.state("done") / job_id)
    ran_on = read_result(job).base_image
    base = baseimage.find(settings.images_path(), ran_on.name if ran_on else settings.images.default)
    layer = publish.publish(
        _store(settings),
        job,
        name,
        directory=directory,
        architecture=base.manifest.architecture,
        max_installed=settings.layers.max_installed,
    )
    click.echo(f"{layer.name} {layer.manifest.sha256}")


@layer_group.command("gc")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@as_json_option
@configured
def layer_gc(settings: Config, dry_run: bool, as_json: bool) -> None:
    """Delete layers above layers.max_total, and what interrupted commands left."""
    spool = Spool.find(settings.spool_path())
    gone = gc.collect(spool, settings.layers.max_total, datetime.now(UTC), dry_run)
    print_gone(gone, "delete", dry_run=dry_run, as_json=as_json)
