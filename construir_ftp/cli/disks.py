"""`construir image export` and `import`: base images for other hypervisors, and from elsewhere."""

from pathlib import Path

import click

from construir_ftp.cli import kept, trial
from construir_ftp.cli.options import Source, Target, configured
from construir_ftp.config import Config
from construir_ftp.image import baseimage, bootdisk, export, importer

_SUFFIXES = (".raw", ".img", ".qcow2")


@click.command("export")
@click.argument("name")
@click.option("--format", "form", type=click.Choice(export.FORMATS), default="raw", help="raw unless given.")
@click.option("-o", "--output", type=Target(), required=True, help="File to write.")
@configured
def image_export(settings: Config, name: str, form: export.Format, output: Path) -> None:
    """Write a disk that boots by itself, of the base image NAME, for a hypervisor of any kind.

    It is the disk that image build --bootable makes, which is made now if it is not there.
    """
    images = settings.images_path()
    base = bootdisk.ensure(images, baseimage.find(images, name))
    export.export(base, form, output)
    click.echo(f"{output} {form} of {base.name} {base.manifest.digest()}")


@click.command("import")
@click.argument("file", type=Source("name a disk image, raw or qcow2"))
@click.option("--name", help="What to call it; else as the file is called.")
@configured
def image_import(settings: Config, file: Path, name: str | None) -> None:
    """Make a base image of the Debian in FILE: raw or qcow2, with one root partition (ext2, ext3 or ext4).

    It gets what makes a worker of it (runjob, root's password "vagrant"), and goes live once a self-test job has
    succeeded in a machine of it. FILE is not changed.
    """
    name = name or file.name.removesuffix(file.suffix if file.suffix in _SUFFIXES else "")
    baseimage.check_name(name)

    images = settings.images_path()
    base = importer.adopt(
        images,
        file,
        name,
        trial.of(settings),
        trial.memory_of(settings),
        most_bytes=settings.machine.scratch,
        kept=kept.for_results(settings),
    )
    click.echo(f"{base.name} {base.manifest.digest()}")
