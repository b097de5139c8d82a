"""`construir shell` and `construir image shell`: a login in a machine of one's own."""

import os
import sys
from pathlib import Path

import click

from construir_ftp import image, supervisor
from construir_ftp.cli.options import PATH, configured, printable
from construir_ftp.config import Config
from construir_ftp.errors import UsageError
from construir_ftp.image import BaseImage
from construir_ftp.machine.vm import Ending
from construir_ftp.runner import shell
from construir_ftp.runner.shell import Copy
from construir_ftp.terminal import END_KEY_NAME, Terminal


@click.command("shell")
@click.argument("name")
@configured
def image_shell(settings: Config, name: str) -> None:
    """Open a machine with the base image NAME, and a login on this terminal: root, password vagrant.

    Logging out or poweroff ends it, Ctrl-] at once. Nothing that is done in it is kept.
    """
    _visit(image.find(settings.images_path(), name), None, settings)


@click.command("shell")
@click.argument("what", metavar="RESULT_OR_JOB")
@click.option("--base", "base_name", help="Base image to boot; unless given, the one it ran on, if it is here.")
@click.option("--keep", type=PATH, help="File to save the changed image in; its suffix says the codec (.zst, .xz ...).")
@configured
def shell_command(settings: Config, what: str, base_name: str | None, keep: Path | None) -> None:
    """Look at a job in a machine: a copy of it at /job, and a login on this terminal: root, password vagrant.

    RESULT_OR_JOB is a result's directory, a job image, or the id of a job in done/. Logging out or poweroff ends the
    machine, Ctrl-] at once. The copy is gone then, unless --keep saves it.
    """
    if keep is not None:
        shell.check_target(keep)
    subject = shell.find(what, settings.spool_path())
    base = _base(settings, base_name, subject.base)
    with shell.copied(subject.image, settings) as copy:
        ending = _visit(base, copy, settings)
        if keep is not None:
            shell.keep(copy, keep)
            torn = "" if ending.report.clean else "; it was not unmounted, and may need e2fsck"
            click.echo(f"construir: kept in {printable(str(keep))} ({keep.stat().st_size} bytes){torn}", err=True)


def _base(settings: Config, wanted: str | None, used: str | None) -> BaseImage:
    images = settings.images_path()
    is_here = used is not None and Path(used).name == used and (images / used / image.MANIFEST).exists()
    return image.find(images, wanted or (used if used and is_here else settings.images.default))


def _visit(base: BaseImage, copy: Copy | None, settings: Config) -> Ending:
    if sys.stdin is None or sys.stdout is None:
        raise UsageError("a login needs standard input and output, and one is closed; </dev/null gives it an empty one")
    terminal = Terminal(sys.stdin.fileno(), sys.stdout.fileno(), os.environ.get("TERM", ""))
    what = f"a copy of {copy.name} at /job" if copy else "no job"
    how = f"; {END_KEY_NAME} ends it" if terminal.is_persons else ""
    click.echo(f"construir: {base.name}, {what}; login root, password vagrant{how}", err=True)
    with supervisor.stop_signal() as stop:
        return shell.visit(base, copy, settings, terminal, stop)
