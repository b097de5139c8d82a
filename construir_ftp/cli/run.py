"""`construir run`: a job by hand, without a server."""

import os
import socket
import sys
from contextlib import closing
from pathlib import Path

import click

from construir_ftp.appliance import supervisor
from construir_ftp.cli.options import JOB_SOURCE, PATH, Source, configured, printable
from construir_ftp.cli.output import Clock
from construir_ftp.cli.screen import Screen
from construir_ftp.config import Config
from construir_ftp.errors import UsageError, exit_code_of
from construir_ftp.image import baseimage
from construir_ftp.jobs.request import Dependencies
from construir_ftp.jobs.result import INSTALL, OUTPUT
from construir_ftp.machine.ending import Ending
from construir_ftp.machine.terminal import END_KEY_NAME, Terminal
from construir_ftp.runner import local, shell
from construir_ftp.runner.shell import Visit


@click.command("run")
@click.argument("source", type=Source(JOB_SOURCE, directories=True))
@click.option("-o", "output", type=PATH, help="Directory for the result; named by the job's id unless given.")
@click.option("--shell-on-failure", is_flag=True, help="If it fails, open its machine, as construir shell does.")
@configured
def run_command(settings: Config, source: Path, output: Path | None, shell_on_failure: bool) -> int:
    """Run SOURCE, a directory or a job image, in a machine here, without a server; exit as run.sh did.

    It passes the same gate, runs in the same machine, and leaves the same directory as on a server. What it depends on
    is looked for in the spool of the appliance here, if there is one; packages are installed into layers there.
    """
    with supervisor.stop_signal() as stop, closing(Clock()) as clock:
        place, result = local.run(source, output, settings, stop, tell=_tell_needs, say=_say, show=clock.show)
    show_logs(place)
    click.echo(f"construir: {result.status}: {printable(result.reason)}; everything is in {place}", err=True)
    if lacking := result.lacking():
        _say(lacking)
    if shell_on_failure and result.status != "success":
        if result.image is None:
            click.echo("construir: it left no image, so there is nothing to look at", err=True)
        else:
            look_at(str(place), settings)
    return exit_code_of(result.status, result.exit_code)


def show_logs(place: Path) -> None:
    """What run.sh printed, or why it was not run; a job that never had a machine has neither."""
    for path in (place / INSTALL, place / OUTPUT):
        if path.exists():
            with path.open("rb") as log, closing(Screen()) as screen:
                for line in log:
                    screen.show(line)


# -- shells ------------------------------------------------------------------------------------------------------

# `construir shell` and `construir image shell`: a login in a machine of one's own.


@click.command("shell")
@click.argument("name")
@configured
def image_shell(settings: Config, name: str) -> None:
    """Open a machine with the base image NAME, and a login on this terminal: root, password vagrant.

    Logging out or poweroff ends it, Ctrl-] at once. Nothing that is done in it is kept.
    """
    with supervisor.stop_signal() as stop:
        _attend(shell.empty(baseimage.find(settings.images_path(), name), settings), settings, stop)


@click.command("shell")
@click.argument("what", metavar="RESULT_OR_JOB")
@click.option("--base", help="Base image to boot; unless given, the one that the job ran on.")
@click.option(
    "--without-dependencies", is_flag=True, help="Open it without the packages, results and layers it asks for."
)
@click.option("--keep", type=PATH, help="File to save the changed image in; its suffix says the codec (.zst, .xz ...).")
@configured
def shell_command(settings: Config, what: str, base: str | None, without_dependencies: bool, keep: Path | None) -> None:
    """Look at a job in the machine it had: a copy of it at /job, and a login on this terminal: root, password vagrant.

    RESULT_OR_JOB is a result's directory, a job image, or the id of a job in done/. Base image, memory, processors,
    environment, packages, results and layers are as its construir.toml says. Logging out or poweroff ends the machine,
    Ctrl-] at once. The copy is gone then, unless --keep saves it.
    """
    look_at(what, settings, base=base, without_dependencies=without_dependencies, keep=keep)


def look_at(
    what: str,
    settings: Config,
    *,
    base: str | None = None,
    without_dependencies: bool = False,
    keep: Path | None = None,
) -> None:
    """Open the machine that the job `what` had, as `construir shell` does."""
    if keep is not None:
        shell.check_target(keep)
    subject = shell.find(what, settings).in_machine(base, not without_dependencies)
    _tell_needs(subject.wanted.dependencies)
    with supervisor.stop_signal() as stop, shell.prepared(subject, settings, stop) as visit:
        ending = _attend(visit, settings, stop)
        if keep is not None and visit.disk is not None:
            shell.keep(visit.disk, keep)
            torn = "" if ending.claims.clean else "; it was not unmounted, and may need e2fsck"
            click.echo(f"construir: kept in {printable(str(keep))} ({keep.stat().st_size} bytes){torn}", err=True)


def _tell_needs(needs: Dependencies) -> None:
    if needed := ", ".join((*needs.installs(), *needs.results, *needs.layers)):
        click.echo(f"construir: getting ready what it depends on: {printable(needed)}", err=True)


def _say(words: str) -> None:
    click.echo(f"construir: {printable(words)}", err=True)


def _attend(visit: Visit, settings: Config, stop: socket.socket) -> Ending:
    if sys.stdin is None or sys.stdout is None:
        raise UsageError("a login needs standard input and output, and one is closed; </dev/null gives it an empty one")
    terminal = Terminal(sys.stdin.fileno(), sys.stdout.fileno(), os.environ.get("TERM", ""))
    what = "no job" if visit.disk is None else f"a copy of {visit.errand.hostname} at /job"
    what += "".join(f", /deps/{name}" for name, _ in visit.errand.results)
    how = f"; {END_KEY_NAME} ends it" if terminal.is_persons else ""
    click.echo(f"construir: {visit.shape.base.name}, {what}; login root, password vagrant{how}", err=True)
    return shell.attend(visit, terminal, settings.machine.boot_timeout, stop)
