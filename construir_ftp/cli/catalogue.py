"""The commands there are: for whom, and in which module, which is imported when the command is asked for.

Those for contributors work wherever Python does. The others need Linux, and the libraries of the extra `appliance`;
where one is missing the command is still listed, and says what to install.
"""

from importlib import import_module
from typing import Any

import click

from construir_ftp.errors import MissingLibraryError

CONTRIBUTORS, OPERATORS = "For contributors", "For operators"
# More than any first sentence has.
_SUMMARY_CHARACTERS = 200

# By its name on the command line: the module here and the attribute there.
_COMMANDS = {
    CONTRIBUTORS: {
        "init": ("packing", "init_command"),
        "pack": ("packing", "pack_command"),
        "inspect": ("packing", "inspect_command"),
        "unpack": ("packing", "unpack_command"),
        "run": ("jobs", "run_command"),
        "shell": ("shells", "shell_command"),
        "submit": ("remote", "submit_command"),
        "watch": ("remote", "watch_command"),
        "jobs": ("remoteresults", "jobs_command"),
        "fetch": ("remoteresults", "fetch_command"),
        "cancel": ("remote", "cancel_command"),
        "retry": ("remote", "retry_command"),
        "diff": ("remoteresults", "diff_command"),
        "completion": ("manual", "completion_command"),
        "man": ("manual", "man_command"),
    },
    OPERATORS: {
        "serve": ("appliance", "serve_command"),
        "check": ("appliance", "check_command"),
        "status": ("appliance", "status_command"),
        "prune": ("appliance", "prune_command"),
        "user": ("users", "user_group"),
        "image": ("images", "image_group"),
        "layer": ("layers", "layer_group"),
    },
}
_PLACES = {name: place for commands in _COMMANDS.values() for name, place in commands.items()}


class Catalogue(click.Group):
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
            return _unavailable(cmd_name, error)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help's list of commands, a section for each kind of reader."""
        for title, commands in _COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self._summary(ctx, name)) for name in commands])

    def _summary(self, ctx: click.Context, name: str) -> str:
        command = self.get_command(ctx, name)
        return command.get_short_help_str(_SUMMARY_CHARACTERS) if command else ""


def _unavailable(name: str, error: ImportError) -> click.Command:
    def say(**_anything: Any) -> None:
        raise MissingLibraryError(f"construir {name}", error.name or str(error)) from error

    return click.Command(
        name,
        callback=say,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True},
        help=f"Needs what is not installed here: {error.name or error}.",
        add_help_option=False,
    )
