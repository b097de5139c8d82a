"""The `construir` command: the only place that prints, and exits.

Each command's module is imported when it is asked for, so that nobody waits for what another one needs, or has to have
it installed: see `catalogue`. Configuration is read here, once, and each part is handed what it needs of it.
"""

import sys
from typing import NoReturn

import click

from construir_ftp import __version__
from construir_ftp.cli.catalogue import Catalogue
from construir_ftp.errors import ConstruirError


def main() -> NoReturn:
    """Run the command line and exit: or what README says of exit codes."""
    try:
        sys.exit(construir(standalone_mode=False, prog_name="construir") or 0)
    except click.exceptions.Exit as asked:
        sys.exit(asked.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except ConstruirError as error:
        click.echo(f"construir: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        click.echo(f"construir: {error.strerror or error}: {error.filename or 'no file'}", err=True)
        sys.exit(1)


@click.group(cls=Catalogue, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="construir")
def construir() -> None:
    """An open build appliance: jobs go in by FTP, run in a virtual machine, come back from done/."""
