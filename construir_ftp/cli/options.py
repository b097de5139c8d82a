"""What commands have in common: the options that lead to the configuration, sizes, and safe printing."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from construir_ftp import config
from construir_ftp.config import Config, JailSection
from construir_ftp.units import Duration, Size

PATH = click.Path(path_type=Path)
_Command = Callable[..., Any]
_WIDE_CHARACTERS = 1000


def printable(text: str) -> str:
    """Text of unknown origin, safe for a terminal: control and bidirectional characters come as escapes."""
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)


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


def print_table(table: Table) -> None:
    """As wide as the terminal; whole lines where there is none."""
    # rich takes 80 for the width of what is no terminal, and gives print() no more than the console has.
    Console(width=None if Console().is_terminal else _WIDE_CHARACTERS).print(table)


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


class SizeType(click.ParamType[Size]):
    """A size with its unit on the command line."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        try:
            return value if isinstance(value, Size) else Size.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class DurationType(click.ParamType[Duration]):
    """A duration with its unit on the command line."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Duration:
        try:
            return value if isinstance(value, Duration) else Duration.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _configure_jail(section: JailSection) -> None:
    try:
        # Imported here: commands that only speak to a server have no need of it.
        from construir_ftp.jail import jail
    except ImportError:  # this is not Linux; a command that jails anything says so
        return
    jail.configure(range(section.first_uid, section.first_uid + section.uids), required=section.require_jail)
