"""`construir image export` and `import`: base images for other hypervisors, and from elsewhere."""

from pathlib import Path

import click

from construir_ftp import image
from construir_ftp.cli.options import PATH, configured
from construir_ftp.config import Config
from construir_ftp.image import bootable, export


@click.command("export")
@click.argument("name")
@click.option("--format", "form", type=click.Choice(export.FORMATS), default="raw", help="raw unless given.")
@click.option("-o", "--output", type=PATH, required=True, help="File to write.")
@configured
def image_export(settings: Config, name: str, form: export.Format, output: Path) -> None:
    """Write a disk that boots by itself, of the base image NAME, for a hypervisor of any kind.

    It is the disk that image build --bootable makes, which is made now if it is not there.
    """
    images = settings.images_path()
    base = bootable.ensure(images, image.find(images, name))
    export.export(base, form, output)
    click.echo(f"{output} {form} of {base.name} {base.manifest.digest()}")


COMMANDS = (image_export,)
