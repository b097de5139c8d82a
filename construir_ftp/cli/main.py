"""The `construir` command: the only place that prints, and exits.

Each command's module is imported when it is asked for, so that nobody waits for what another one needs, or has to have
it installed: see `Catalogue`. Configuration is read here, once, and each part is handed what it needs of it.
"""

import logging
import sys
from importlib import import_module
from typing import Any, NoReturn

import click

from construir_ftp import __version__
from construir_ftp.cli import group, help_text, logs, permission
from construir_ftp.cli.group import Group
from construir_ftp.errors import INSTALL, ConstruirError, MissingLibraryError, one_line

# The commands there are: for whom, and in which module, which is imported when the command is asked for.
# Those for contributors work wherever Python does. The others need Linux, and the libraries of the extra `appliance`;
# where one is missing the command is still listed, and says what to install.
CONTRIBUTORS, OPERATORS = "For contributors", "For operators"
# More than any first sentence has.
_SUMMARY_CHARACTERS = 200

# By its name on the command line: the module here and the attribute there.
_COMMANDS = {
    CONTRIBUTORS: {
        "init": ("pack", "init_command"),
        "pack": ("pack", "pack_command"),
        "inspect": ("pack", "inspect_command"),
        "unpack": ("pack", "unpack_command"),
        "run": ("run", "run_command"),
        "shell": ("run", "shell_command"),
        "submit": ("submit", "submit_command"),
        "watch": ("submit", "watch_command"),
        "jobs": ("results", "jobs_command"),
        "top": ("top", "top_command"),
        "fetch": ("results", "fetch_command"),
        "verify": ("verify", "verify_command"),
        "rerun": ("again", "rerun_command"),
        "rebuild": ("again", "rebuild_command"),
        "cosign": ("again", "cosign_command"),
        "cancel": ("submit", "cancel_command"),
        "retry": ("submit", "retry_command"),
        "diff": ("results", "diff_command"),
        "completion": ("manual", "completion_command"),
        "man": ("manual", "man_command"),
    },
    OPERATORS: {
        "setup": ("setup", "setup_command"),
        "serve": ("serve", "serve_command"),
        "check": ("serve", "check_command"),
        "status": ("status", "status_command"),
        "nodes": ("nodes", "nodes_command"),
        "node": ("nodes", "node_group"),
        "news": ("news", "news_command"),
        "drain": ("service", "drain_command"),
        "pause": ("service", "pause_command"),
        "resume": ("service", "resume_command"),
        "delete": ("service", "delete_command"),
        "prune": ("serve", "prune_command"),
        "user": ("users", "user_group"),
        "image": ("images", "image_group"),
        "layer": ("layers", "layer_group"),
    },
}
# The first sentences, without a dot, of the commands that need the libraries of the extra `appliance`: for where these
# are missing.
_SUMMARIES = {
    "run": "Run SOURCE, a directory or a job image, in a machine here, without a server; exit as run.sh did",
    "shell": "Look at a job in the machine it had: a copy of it at /job, and a login on this terminal: root,"
    " password vagrant",
    "rerun": "Run the job of RESULT, a directory from done/ of any appliance, here once more; exit as run.sh does",
    "rebuild": "Build once more what an appliance has built, and say which artifacts are the same, byte for byte; 1 if"
    " any isn't",
    "cosign": "State and sign which artifacts of RESULT, made here, other appliances have made alike; 1 if any differs",
    "setup": "Make this computer an appliance: build the base image, add a contributor, open the doors, run a job",
    "serve": "Run the appliance until SIGTERM: FTP server, runner, janitor, pages, news, pilots, or only one PART",
    "check": "Say whether everything the appliance needs is here, and what to do where it isn't",
    "status": "Say what waits and why, what runs, and how much room there is",
    "nodes": "Say which computers run jobs of this appliance, what can be had there, and what they do",
    "node": "One of the computers that run jobs of this appliance",
    "news": "Say who is told what goes on here, by which ways, and what waits to be told",
    "drain": "Take the appliance out of service: no uploads are taken, no jobs are started, and those that run end",
    "pause": "Have all machines stand still, and start no jobs; uploads are taken",
    "resume": "Take uploads and jobs again, after `construir drain` or `pause`; what stood still goes on",
    "delete": "Delete results of this computer's appliance, whoever sent the jobs: ID is one, or what begins only one",
    "prune": "Delete the results that the limits of the configuration no longer allow, once, now",
    "user": "Who may send jobs",
    "image": "Base images: what machines boot",
    "layer": "Layers: Debian packages and published results that jobs can depend on",
}
_PLACES = {name: place for commands in _COMMANDS.values() for name, place in commands.items()}


class Catalogue(Group):
    """A group of the commands above, imported one by one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order that they are told in."""
        return list(_PLACES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; one that only says what it lacks where it can't be imported."""
        if cmd_name not in _PLACES:
            return None
        module, attribute = _PLACES[cmd_name]
        try:
            command: click.Command = getattr(import_module(f"construir_ftp.cli.{module}"), attribute)
        except ImportError as error:
            command = _unavailable(cmd_name, error)
        return help_text.with_whole_words(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help's list of commands, a section for each kind of reader."""
        for title, commands in _COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self._summary(ctx, name)) for name in commands])

    def _summary(self, ctx: click.Context, name: str) -> str:
        command = self.get_command(ctx, name)
        return command.get_short_help_str(_SUMMARY_CHARACTERS) if command else ""


def _unavailable(name: str, error: ImportError) -> click.Command:
    """A command of that name, listed as what it is, which says what it lacks."""

    summary = _SUMMARIES.get(name)

    def say(**_anything: Any) -> None:
        raise MissingLibraryError(f"construir {name}", error.name or str(error)) from error

    return click.Command(
        name,
        callback=say,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True},
        help=f"{summary} (needs: {INSTALL})." if summary else f"Needs what is not installed here: {error.name}.",
        add_help_option=False,
    )


@click.group(cls=Catalogue, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="construir")
def construir() -> None:
    """An open build appliance: jobs go in by FTP, run in a virtual machine, come back from done/."""


def main() -> NoReturn:
    """Run the command line and exit: or what README says of exit codes."""
    logs.begin(logging.WARNING, "construir: %(message)s")
    try:
        sys.exit(construir(standalone_mode=False, prog_name="construir") or 0)
    except click.exceptions.Exit as asked:
        sys.exit(asked.exit_code)
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption) and (file := group.file_meant(error.option_name, sys.argv[1:])):
            text = f"No such option {error.option_name!r}. The file of that name is: ./{one_line(file)}"
            error = click.NoSuchOption(error.option_name, text, ctx=error.ctx)
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except ConstruirError as error:
        click.echo(f"construir: {one_line(permission.in_spool(error.__cause__) or error)}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        click.echo(one_line(f"construir: {permission.in_words(error)}"), err=True)
        sys.exit(1)
