"""`construir run`: a job by hand, without a server."""

from pathlib import Path

import click

from construir_ftp import supervisor
from construir_ftp.cli import shells
from construir_ftp.cli.options import PATH, configured, printable
from construir_ftp.config import Config
from construir_ftp.errors import UsageError, exit_code_of
from construir_ftp.result import OUTPUT
from construir_ftp.runner import local


@click.command("run")
@click.argument("source", type=PATH)
@click.option("-o", "output", type=PATH, help="Directory for the result; named by the job's id unless given.")
@click.option("--shell-on-failure", is_flag=True, help="If it fails, open its machine, as construir shell does.")
@configured
def run_command(settings: Config, source: Path, output: Path | None, shell_on_failure: bool) -> int:
    """Run SOURCE, a directory or a job image, in a machine here, without a server; exit as run.sh did.

    It passes the same gate, runs in the same machine, and leaves the same directory as on a server. What it depends on
    is looked for in the spool of the appliance here, if there is one; packages are installed into layers there.
    """
    if not source.exists():
        raise UsageError(f"{source} is not there; name a directory with run.sh, or a job image")
    with supervisor.stop_signal() as stop:
        place, result = local.run(source, output, settings, stop)
    with (place / OUTPUT).open(errors="replace") as log:
        for line in log:
            click.echo(printable(line), nl=False)
    click.echo(f"construir: {result.status}: {printable(result.reason)}; everything is in {place}", err=True)
    if shell_on_failure and result.status != "success":
        if result.image is None:
            click.echo("construir: it left no image, so there is nothing to look at", err=True)
        else:
            shells.look_at(str(place), settings)
    return exit_code_of(result.status, result.exit_code)
