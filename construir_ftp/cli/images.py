"""`construir image`: what machines boot."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import click
import msgspec
from rich.table import Table

from construir_ftp import architecture
from construir_ftp.appliance import supervisor
from construir_ftp.cli import disks, kept, run, trial
from construir_ftp.cli.options import (
    Commands,
    as_json_option,
    configured,
    print_gone,
    print_json,
    printable,
)
from construir_ftp.cli.output import file_line, file_objects, steps
from construir_ftp.cli.servers import tell
from construir_ftp.cli.tables import print_table
from construir_ftp.config import Config
from construir_ftp.errors import ConstruirError, UsageError
from construir_ftp.image import baseimage, bootdisk, diff, gc, recipe, versions
from construir_ftp.image import build as imagebuild
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.image.diff import Change, ImageDiff
from construir_ftp.jobs import references
from construir_ftp.jobs.spool import Spool
from construir_ftp.layers.store import Store


@click.group("image", cls=Commands)
def image_group() -> None:
    """Base images: what machines boot."""


@image_group.command("build")
@click.argument("name", required=False)
@click.option("--suite", help="Debian's name for the release; what NAME begins with, else bookworm.")
@click.option("--arch", help="Debian's name for the architecture; what NAME ends with, else this host's.")
@click.option("--include", help="Further packages, separated by commas.")
@click.option("--mirror", help="Archive to take packages from, as images.mirror; a URL or a line of sources.list.")
@click.option("--keyring", help="File of the keys that sign the archive, as images.keyring.")
@click.option("--snapshot", default="", metavar="TIME", help="Take packages as they were then: 20260131T000000Z.")
@click.option("--uml/--no-uml", default=None, help="With a user-mode kernel, too, from images.uml_source.")
@click.option("--refresh", is_flag=True, help="Build even if nothing but the archive may have changed since.")
@click.option("--force", is_flag=True, help="Build in any case, and put it in place without a self-test.")
@click.option("--bootable", "with_disk", is_flag=True, help="Make a disk of it, too, that boots by itself.")
@configured
def image_build(
    settings: Config,
    name: str | None,
    suite: str | None,
    arch: str | None,
    include: str | None,
    mirror: str | None,
    keyring: str | None,
    snapshot: str,
    uml: bool | None,
    refresh: bool,
    force: bool,
    with_disk: bool,
) -> None:
    """Build the base image NAME (SUITE-ARCHITECTURE unless given); root is not needed.

    What takes the place of another has to pass a self-test first: a job in a machine of it. Jobs that start
    afterwards use it, those that run keep theirs. Suite, architecture, packages and --uml that are left out are, for
    an image that is there, what it was built with.
    """
    images = settings.images_path()
    name = name or recipe.default_name(suite or recipe.DEFAULT_SUITE, arch or architecture.native())
    built = _built(images, name)
    _demand_meant(name, built, suite, is_forced=force)
    suite_meant, arch_meant = (built.suite, built.architecture) if built else recipe.meant_by(name)
    suite = suite or suite_meant
    mirror, keyring = recipe.archive(suite, settings.images, mirror, keyring)
    wanted = recipe.Recipe(
        name=name,
        suite=suite,
        architecture=arch or arch_meant,
        include=_words(include) if include is not None or built is None else tuple(built.include),
        mirror=mirror,
        keyring=keyring,
        snapshot=snapshot,
        snapshot_mirror=settings.images.snapshot_mirror,
        root_bytes=settings.machine.scratch,
        uml=settings.images.uml_source if _has_uml(uml, built) else "",
    )
    if not (force or refresh) and imagebuild.is_current(images, wanted):
        click.echo(f"{name} is there already, made from the same recipe; --refresh builds it anew")
        if with_disk:
            _make_disk(images, baseimage.find(images, name))
        return
    with supervisor.on_stop(_stop), steps(name, imagebuild.steps_to_take(is_new=built is None)) as tell_step:
        base = _build(settings, wanted, tell_step, skip_trial=force)
    _tell(base, built)
    if with_disk:
        _make_disk(images, base)


def _demand_meant(name: str, built: baseimage.Manifest | None, suite: str | None, *, is_forced: bool) -> None:
    """Raises UsageError where an image of that name would hardly be what is wanted."""
    if built is None and suite is None:
        recipe.demand_no_suite(name)
    if built and built.imported and not is_forced:
        raise UsageError(f"base image '{name}' was imported, not built; choose another name, or --force to replace it")


def _build(settings: Config, wanted: recipe.Recipe, tell_step: imagebuild.Tell, *, skip_trial: bool) -> BaseImage:
    approve, measure = trial.of(settings, skip=skip_trial), trial.memory_of(settings)
    stay = kept.for_results(settings)
    return imagebuild.build(settings.images_path(), wanted, approve, measure, tell_step, stay)


def _tell(base: BaseImage, before: baseimage.Manifest | None) -> None:
    same = before is not None and before.digest() == base.manifest.digest()
    click.echo(f"{base.name} {base.manifest.digest()}{' (as it was)' if same else ''}")


def _make_disk(images: Path, base: BaseImage) -> None:
    base = bootdisk.ensure(images, base)
    click.echo(f"{base.path / baseimage.DISK} boots by itself; image export writes it in other formats")


def _built(images: Path, name: str) -> baseimage.Manifest | None:
    try:
        return baseimage.find(images, name).manifest
    except ConstruirError:  # none, or a damaged one: either is about to be mended
        return None


def _has_uml(asked: bool | None, built: baseimage.Manifest | None) -> bool:
    return asked if asked is not None else bool(built and built.uml)


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(filter(None, (text or "").split(",")))


def _stop() -> NoReturn:
    # Python's way out of a wait for a child, which is then ended with all that it started.
    raise KeyboardInterrupt


@image_group.command("list")
@click.option("--all", "everything", is_flag=True, help="Older versions, too.")
@as_json_option
@configured
def image_list(settings: Config, everything: bool, as_json: bool) -> None:
    """Print what base images there are; of each name the live version comes first."""
    images = settings.images_path()
    found = [base for name in baseimage.names(images) for base in _versions(images, name, everything)]
    if as_json:
        plain = [msgspec.to_builtins(base.manifest) | {"digest": base.manifest.digest()} for base in found]
        print_json(plain)
        return
    table = Table("name", "suite", "kernel", "built", "digest", box=None)
    for base in found:
        manifest = base.manifest
        digest = manifest.digest().removeprefix("sha256:")[:16]
        table.add_row(base.name, manifest.suite, manifest.kernel_release, f"{manifest.created:%Y-%m-%d}", digest)
    print_table(table, nothing=f"there are no base images in {images} yet; to have one: construir image build")


def _versions(images: Path, name: str, everything: bool) -> list[BaseImage]:
    live = baseimage.find(images, name)
    others = [base for base in versions.every(images, name) if base.path.resolve() != live.path]
    return [live, *others] if everything else [live]


@image_group.command("verify")
@click.argument("name", required=False)
@configured
def image_verify(settings: Config, name: str | None) -> None:
    """Compare every part of the base image NAME with the digest taken when it was built.

    Without NAME it is the one that a job gets which asks for none.
    """
    base = baseimage.find(settings.images_path(), name or settings.images.default)
    baseimage.verify(base)
    click.echo(f"{base.name} is whole: {base.manifest.digest()}")


@image_group.command("diff")
@click.argument("old")
@click.argument("new")
@as_json_option
@configured
def image_diff(settings: Config, old: str, new: str, as_json: bool) -> int:
    """Say why the base image NEW is not the same as OLD: recipe, packages, files. Exits with 1 if it isn't.

    Each is a name, or NAME@DIGEST for an older version (see list --all), or the directory of an image from elsewhere.
    """
    images = settings.images_path()
    report = diff.compare(_named(images, old), _named(images, new))
    if as_json:
        click.echo(difference_json(report))
    else:
        for line in difference_lines(report):
            click.echo(line)
    return int(not report.is_same())


def _named(images: Path, text: str) -> BaseImage:
    if "/" in text:
        try:
            return baseimage.read(Path(text).resolve(), Path(text).name)
        except FileNotFoundError as error:
            raise ConstruirError(f"{text} is no base image: there is no {baseimage.MANIFEST} in it") from error
    name, _, digest = text.partition("@")
    if not digest:
        return baseimage.find(images, name)
    for base in versions.every(images, name):
        if base.path.name.startswith(digest):
            return base
    raise ConstruirError(f"base image '{name}' has no version {digest}; run: construir image list --all")


@image_group.command("gc")
@click.option("--names", "with_names", is_flag=True, help="Also images that no configuration, job or layer names.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@as_json_option
@configured
def image_gc(settings: Config, with_names: bool, dry_run: bool, as_json: bool) -> None:
    """Remove what nothing needs: old versions, and rests of builds.

    The live version of an image stays, whether anything names it or not; with --names one that nothing names goes, too.
    What a machine or a template uses stays in any case, and so do the versions that results in done/ were made on, up
    to images.keep_for_results.
    """
    images = settings.images_path()
    named = {settings.images.default, *settings.images.keep, *_asked_for(settings)}
    needed = named if with_names else set(versions.names(images))
    stay = kept.for_results(settings)
    gone = gc.plan(images, needed, stay) if dry_run else gc.collect(images, needed, stay)
    told = [(one.what, f"{one.reason}; {one.size_bytes // 2**20} MiB") for one in gone]
    print_gone(told, "remove", dry_run=dry_run, as_json=as_json)
    for name in sorted(needed - named):
        tell(f"{name} stays, though no configuration, job or layer names it; --names removes it")


def _asked_for(settings: Config) -> set[str]:
    """The names that jobs, or layers, need."""
    path = settings.spool_path()
    if not (path / "queue").is_dir():
        return set()
    spool = Spool.find(path)
    layered = {layer.manifest.base for layer in Store(spool.state("layers")).every()}
    images = baseimage.every(settings.images_path())
    return references.bases(spool) | {base.name for base in images if base.manifest.digest() in layered}


@image_group.command("remove")
@click.argument("name")
@configured
def image_remove(settings: Config, name: str) -> None:
    """Remove the base image NAME and all its versions, unless something runs on it."""
    gc.remove(settings.images_path(), name)


# -- differences of two base images ------------------------------------------------------------------------------

# A line for each, marked as diff(1) does.


def difference_lines(report: ImageDiff) -> Iterator[str]:
    """All of a report; a line that says so if there is no difference."""
    yield _summary(report)
    yield from _section("recipe", [_change(change) for change in report.settings])
    yield from _section("base-image/", [_marked(change, change.what) for change in report.ingredients])
    yield from _section("packages", [_change(change) for change in report.packages])
    yield from _section("parts", [_marked(change, change.what) for change in report.parts])
    yield from _section("files", [file_line(difference) for difference in report.files])


def _summary(report: ImageDiff) -> str:
    if report.is_same():
        return "the same, byte for byte"
    packages = [(change.old, change.new) for change in report.packages]
    files = [(difference.old, difference.new) for difference in report.files]
    parts = ", ".join(change.what for change in report.parts)
    return f"different: {_counted('package', packages)}; {_counted('file', files)}; of the parts: {parts}"


def _counted(what: str, pairs: list[tuple[Any, Any]]) -> str:
    added, removed = sum(old is None for old, _ in pairs), sum(new is None for _, new in pairs)
    counts = {"changed": len(pairs) - added - removed, "added": added, "removed": removed}
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return f"{len(pairs)} {what}{'' if len(pairs) == 1 else 's'}" + (f" ({told})" if told else "")


def _section(title: str, entries: list[str]) -> Iterator[str]:
    if entries:
        yield f"{title}: {len(entries)}"
        yield from (f"  {entry}" for entry in entries)


def _change(change: Change) -> str:
    values = " -> ".join(printable(value) for value in (change.old, change.new) if value is not None)
    return _marked(change, f"{change.what} {values}")


def _marked(change: Change, text: str) -> str:
    return f"{'+' if change.old is None else '-' if change.new is None else '~'} {text}"


def difference_json(report: ImageDiff) -> str:
    """A report as JSON; a path that is not UTF-8 has its bytes as escapes."""
    plain = msgspec.to_builtins(msgspec.structs.replace(report, files=[]))
    plain["files"] = file_objects(report.files)
    return msgspec.json.format(msgspec.json.encode(plain)).decode()


for command in (run.image_shell, disks.image_export, disks.image_import):
    image_group.add_command(command)
