"""`construir image`: what machines boot."""

import click
import msgspec
from rich.console import Console
from rich.table import Table

from construir_ftp import image
from construir_ftp.cli.options import configured
from construir_ftp.config import Config
from construir_ftp.image import build as imagebuild


@click.group("image")
def image_group() -> None:
    """Base images: what machines boot."""


@image_group.command("build")
@click.argument("name", required=False)
@click.option("--suite", default="bookworm", show_default=True, help="Debian's name for the release.")
@click.option("--include", default="", help="Further packages, separated by commas.")
@click.option("--force", is_flag=True, help="Build even if an image of the same recipe is there.")
@configured
def image_build(settings: Config, name: str | None, suite: str, include: str, force: bool) -> None:
    """Build the base image NAME (SUITE-ARCHITECTURE unless given); root is not needed."""
    recipe = imagebuild.Recipe(
        name=name or imagebuild.default_name(suite),
        suite=suite,
        include=tuple(filter(None, include.split(","))),
        mirror=settings.images.mirror,
    )
    images = settings.images_path()
    if not force and imagebuild.is_current(images, recipe):
        click.echo(f"{recipe.name} is there already, made from the same recipe; --force builds it anew")
        return
    base = imagebuild.build(images, recipe)
    click.echo(f"{base.name} {base.manifest.digest()}")


@image_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the manifests as JSON.")
@configured
def image_list(settings: Config, as_json: bool) -> None:
    """Print what base images there are."""
    found = image.every(settings.images_path())
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode([base.manifest for base in found])).decode())
        return
    table = Table("name", "suite", "kernel", "packages", "built", "digest", box=None)
    for base in found:
        manifest = base.manifest
        table.add_row(
            base.name,
            manifest.suite,
            manifest.kernel_release,
            str(len(manifest.packages)),
            f"{manifest.created:%Y-%m-%d}",
            manifest.digest().removeprefix("sha256:")[:12],
        )
    Console().print(table)


@image_group.command("verify")
@click.argument("name")
@configured
def image_verify(settings: Config, name: str) -> None:
    """Compare every part of the base image NAME with the digest taken when it was built."""
    base = image.find(settings.images_path(), name)
    image.verify(base)
    click.echo(f"{base.name} is whole: {base.manifest.digest()}")
