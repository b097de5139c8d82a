"""`construir pack`, `unpack` and `run`: jobs by hand, without a server."""

from pathlib import Path

import click

from construir_ftp import codec, jobfile, pack, results, supervisor
from construir_ftp.cli.options import PATH, SizeType, configured, printable
from construir_ftp.config import Config
from construir_ftp.errors import UsageError, exit_code_of
from construir_ftp.runner import local
from construir_ftp.units import Size


@click.command("pack")
@click.argument("directory", type=PATH)
@click.option("-o", "output", type=PATH, help="File to write; DIRECTORY.img.zst unless given.")
@click.option("--space", type=SizeType(), default="64MiB", show_default=True, help="Free room for the job to fill.")
@click.option(
    "--codec",
    "codec_name",
    type=click.Choice(list(codec.CODECS)),
    default="zstd",
    show_default=True,
    help="Outer format.",
)
@configured
def pack_command(_settings: Config, directory: Path, output: Path | None, space: Size, codec_name: str) -> None:
    """Make a job out of DIRECTORY, which holds run.sh; no root is needed."""
    target = output or Path(f"{jobfile.name_of(directory)}.img{codec.CODECS[codec_name].suffix}")
    pack.pack(directory, target, space, codec_name)
    click.echo(f"{target} ({target.stat().st_size} bytes)")


@click.command("unpack")
@click.argument("file", type=PATH)
@click.argument("directory", type=PATH)
@configured
def unpack_command(_settings: Config, file: Path, directory: Path) -> None:
    """Put what is in the job image FILE into DIRECTORY, which must be new or empty; no root is needed."""
    for left_out in pack.unpack(file, directory):
        click.echo(f"left out, since only root may make it: {printable(str(left_out))}", err=True)


@click.command("run")
@click.argument("source", type=PATH)
@click.option("-o", "output", type=PATH, help="Directory for the result; named by the job's id unless given.")
@configured
def run_command(settings: Config, source: Path, output: Path | None) -> int:
    """Run SOURCE, a directory or a job image, in a machine here, without a server; exit as run.sh did."""
    if not source.exists():
        raise UsageError(f"{source} is not there; name a directory with run.sh, or a job image")
    with supervisor.stop_signal() as stop:
        place, result = local.run(source, output, settings, stop)
    with (place / results.OUTPUT).open(errors="replace") as log:
        for line in log:
            click.echo(printable(line), nl=False)
    click.echo(f"construir: {result.status}: {printable(result.reason)}; everything is in {place}", err=True)
    return exit_code_of(result.status, result.exit_code)
