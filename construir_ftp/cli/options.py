"""What commands have in common: the options that lead to the configuration, sizes, and safe printing."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from construir_ftp import config
from construir_ftp.units import Size

PATH = click.Path(path_type=Path)
_Command = Callable[..., Any]


def printable(text: str) -> str:
    """Text of unknown origin, safe for a terminal: control and bidirectional characters come as escapes."""
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)


def configured(command: _Command) -> _Command:
    """Give a command --config, --spool and --images, and hand it the Config they come to."""

    @click.option("--config", "config_path", type=PATH, envvar="CONSTRUIR_CONFIG", help="Configuration file.")
    @click.option("--spool", type=PATH, envvar="CONSTRUIR_SPOOL", help="Directory that jobs live in.")
    @click.option("--images", type=PATH, envvar="CONSTRUIR_IMAGES", help="Directory of base images.")
    @functools.wraps(command)
    def with_config(config_path: Path | None, spool: Path | None, images: Path | None, **options: Any) -> Any:
        settings = config.load(config_path)
        if spool is not None:
            changed = msgspec.structs.replace(settings.spool, path=str(spool.absolute()))
            settings = msgspec.structs.replace(settings, spool=changed)
        if images is not None:
            changed_images = msgspec.structs.replace(settings.images, path=str(images.absolute()))
            settings = msgspec.structs.replace(settings, images=changed_images)
        # Imported here: commands that only speak to a server have no need of it.
        from construir_ftp import jail

        first = settings.jail.first_uid
        jail.configure(range(first, first + settings.jail.uids), required=settings.jail.require_jail)
        return command(settings, **options)

    return with_config


class SizeType(click.ParamType[Size]):
    """A size with its unit on the command line."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        try:
            return value if isinstance(value, Size) else Size.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
