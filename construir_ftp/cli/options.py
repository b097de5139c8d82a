"""What commands have in common: the options that lead to the configuration, sizes, and safe printing."""

import functools
import os
import shutil
import stat
import sys
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from construir_ftp import config
from construir_ftp.cli import help_text
from construir_ftp.cli.group import Group
from construir_ftp.config import Config, JailSection
from construir_ftp.errors import ConstruirError, MissingError, UsageError
from construir_ftp.units import Duration, Size

# Whether it can be read is said by whoever reads it: it may be one to write.
PATH = click.Path(path_type=Path, readable=False)
_Command = Callable[..., Any]
# What to name where a job is to be named.
JOB_SOURCE = "name a directory with run.sh, or a job image"
_WIDE_CHARACTERS = 1000
# With less room than this, what follows a head begins a line of its own.
_LEAST_CHARACTERS = 20


class Commands(Group):
    """A group whose help has the first sentence of each command, to its end."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        command = super().get_command(ctx, cmd_name)
        return command and help_text.with_whole_words(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in the help."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str(_WIDE_CHARACTERS)) for name, command in commands if command]
            )


def printable(text: str) -> str:
    """Text of unknown origin, safe for a terminal: control and bidirectional characters come as escapes."""
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)


def on_one_line(text: str) -> str:
    """The same where there is one line for it, as in a table."""
    return " ".join(printable(text).split())


as_json_option = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")


def print_json(value: object) -> None:
    """As JSON, for a script."""
    click.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def print_gone(gone: Iterable[tuple[str, str]], verb: str, *, dry_run: bool, as_json: bool) -> None:
    """What was deleted or removed, or would be, and why."""
    if as_json:
        print_json([{"name": name, "reason": reason, verb + "d": not dry_run} for name, reason in gone])
        return
    told = [
        f"{f'would {verb}' if dry_run else f'{verb}d'} {printable(name)}: {printable(reason)}" for name, reason in gone
    ]
    for line in told or [f"nothing to {verb}"]:
        click.echo(line)


def print_hanging(head: str, text: str) -> None:
    """A text behind its head; on a terminal in as many lines as it takes, all of them behind the head's end."""
    if not (sys.stdout and sys.stdout.isatty()):
        click.echo(head + text)
        return
    width = max(shutil.get_terminal_size().columns, len(head) + _LEAST_CHARACTERS)
    click.echo(
        textwrap.fill(text, width, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False)
    )


def is_person_there() -> bool:
    """Whether standard input is a terminal, so that somebody can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def configured(command: _Command) -> _Command:
    """Give a command --config, --spool and --images, and hand it the Config they come to."""

    @click.option("--config", "config_path", type=PATH, envvar="CONSTRUIR_CONFIG", help="Configuration file.")
    @click.option("--spool", type=PATH, envvar="CONSTRUIR_SPOOL", help="Directory that jobs live in.")
    @click.option("--images", type=PATH, envvar="CONSTRUIR_IMAGES", help="Directory of base images.")
    @functools.wraps(command)
    def with_config(config_path: Path | None, spool: Path | None, images: Path | None, **options: Any) -> Any:
        settings = settings_of(config_path, spool, images)
        _configure_jail(settings.jail)
        return command(settings, **options)

    return with_config


def settings_of(config_path: Path | None, spool: Path | None, images: Path | None = None) -> Config:
    """The configuration file, and the places that win over it. Raises ConfigError."""
    settings = config.load(config_path)
    if spool is not None:
        changed = msgspec.structs.replace(settings.spool, path=str(spool.absolute()))
        settings = msgspec.structs.replace(settings, spool=changed)
    if images is not None:
        changed_images = msgspec.structs.replace(settings.images, path=str(images.absolute()))
        settings = msgspec.structs.replace(settings, images=changed_images)
    return settings


_Quantity = TypeVar("_Quantity", Size, Duration)


class Source(click.Path):
    """A file to be read, or a directory where `directories` are taken as well; `cure` says what to name instead.

    Raises MissingError, UsageError, and ConstruirError for what this user may not read.
    """

    def __init__(self, cure: str, *, directories: bool = False) -> None:
        super().__init__(path_type=Path, readable=False)
        self._cure, self._directories = cure, directories

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path, of what is there and can be read."""
        path = Path(value)
        if why := self._why_not(path):
            raise UsageError(f"{printable(str(path))} {why}; {self._cure}")
        if not os.access(path, os.R_OK):
            raise ConstruirError(f"{printable(str(path))} can't be read by this user; change its mode, or give a copy")
        return path

    def _why_not(self, path: Path) -> str:
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError) as error:
            what = "is a symbolic link to what is not there" if path.is_symlink() else "is not there"
            raise MissingError(f"{printable(str(path))} {what}; {self._cure}") from error
        if stat.S_ISREG(mode):
            return ""
        if stat.S_ISDIR(mode):
            return "" if self._directories else "is a directory"
        return "is a pipe, a socket or a device, and no file"


class Target(click.Path):
    """A file to be written, where none is, or another in its place. Raises UsageError: a device is not replaced."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, readable=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path, of a file or of nothing yet."""
        path = Path(value)
        if path.exists() and not path.is_file():
            what = "a directory" if path.is_dir() else "a pipe, a socket or a device"
            raise UsageError(f"{printable(str(path))} is {what}; name a file to be written")
        return path


class _QuantityType(click.ParamType[_Quantity]):
    kind: type[_Quantity]

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> _Quantity:
        try:
            return value if isinstance(value, self.kind) else self.kind.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class SizeType(_QuantityType[Size]):
    """A size with its unit on the command line."""

    name, kind = "size", Size


class DurationType(_QuantityType[Duration]):
    """A duration with its unit on the command line."""

    name, kind = "duration", Duration


def _configure_jail(section: JailSection) -> None:
    try:
        # Imported here: commands that only speak to a server have no need of it.
        from construir_ftp.jail import jail
    except ImportError:  # this is not Linux; a command that jails anything says so
        return
    jail.configure(range(section.first_uid, section.first_uid + section.uids), required=section.require_jail)
