"""The `construir` command: the only place that prints, and exits.

Configuration is read here, once, and each part is handed what it needs of it.
"""

import contextlib
import logging
import signal
import sys
import threading
from datetime import UTC, datetime
from typing import NoReturn

import click
import msgspec
from rich.console import Console
from rich.table import Table

from construir_ftp import __version__, check, confinement, guide, janitor, status, supervisor
from construir_ftp.cli import images as cli_images
from construir_ftp.cli import jobs as cli_jobs
from construir_ftp.cli import layers as cli_layers
from construir_ftp.cli import shells as cli_shells
from construir_ftp.cli.options import configured, printable
from construir_ftp.config import Config
from construir_ftp.errors import ConstruirError
from construir_ftp.offer import Offer
from construir_ftp.refresher import Refresher
from construir_ftp.runner import Runner
from construir_ftp.spool import Spool
from construir_ftp.users import Users


def main() -> NoReturn:
    """Run the command line and exit: 0 fine, 1 failed, 2 usage, 69 QEMU missing, 78 bad configuration."""
    try:
        sys.exit(construir(standalone_mode=False) or 0)
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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="construir")
def construir() -> None:
    """An open build appliance: jobs go in by FTP, run in a virtual machine, come back from done/."""


# -- the appliance ------------------------------------------------------------------------------------------


@construir.command()
@click.argument("part", type=click.Choice(supervisor.PARTS), required=False)
@click.option("--port", type=click.IntRange(0, 65535), help="FTP port; 0 takes any that is free.")
@click.option("--parent", type=int, hidden=True, help="Pid of the supervisor that started this part.")
@configured
def serve(settings: Config, part: str | None, port: int | None, parent: int | None) -> None:
    """Run the appliance until SIGTERM: FTP server, runner and janitor, or only the PART named."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("sh").setLevel(logging.WARNING)
    if port is not None:
        settings = msgspec.structs.replace(settings, ftp=msgspec.structs.replace(settings.ftp, port=port))
    if parent is not None:
        confinement.die_with_parent(parent, signal.SIGTERM)
    spool = Spool.prepare(settings.spool_path())
    if part is None:
        with supervisor.stop_signal() as stop:
            # What this command was told, its parts are told too.
            supervisor.supervise(sys.argv[1:], stop)
    else:
        {"ftp": _serve_ftp, "runner": _serve_runner, "janitor": _serve_janitor}[part](settings, spool)


def _serve_ftp(settings: Config, spool: Spool) -> None:
    # Imported here: no other command should have to wait for an FTP server to load.
    from construir_ftp import server

    users = Users(settings.users_path())
    offer = Offer.of(spool, settings)
    ftp = server.open_server(
        spool,
        users,
        settings.ftp,
        settings.tls,
        settings.gate,
        offer,
        settings.spool.min_free,
        guide.text(settings),
    )
    with supervisor.on_stop(ftp.stop), contextlib.closing(ftp):
        ftp.run()


def _serve_runner(settings: Config, spool: Spool) -> None:
    with supervisor.stop_signal() as stop:
        Runner(spool, settings).serve(stop)


def _serve_janitor(settings: Config, spool: Spool) -> None:
    stopped = threading.Event()

    def pass_on() -> None:
        stop.recv(1)
        stopped.set()

    with supervisor.stop_signal() as stop:
        # An Event may not be set from a signal handler: it could have interrupted the one who holds its lock.
        threading.Thread(target=pass_on, daemon=True).start()
        build = _command("image", "build", "--refresh")
        with contextlib.closing(Refresher(settings.images_path(), settings.images.refresh, build)) as refresher:
            limits, min_free = settings.janitor, settings.spool.min_free
            janitor.Janitor(spool, limits, min_free, settings.layers, refresher.look).run(stopped)


def _command(*words: str) -> list[str]:
    """A command of ours, with the same configuration as this one."""
    given = click.get_current_context().params
    options = {"--config": given["config_path"], "--spool": given["spool"], "--images": given["images"]}
    chosen = [f"{option}={path.absolute()}" for option, path in options.items() if path is not None]
    return [sys.executable, "-m", "construir_ftp", *words, *chosen]


@construir.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@configured
def check_command(settings: Config, as_json: bool) -> int:
    """Say whether everything the appliance needs is here, and what to do where it isn't."""
    findings = check.check(settings)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(findings)).decode())
    for finding in [] if as_json else findings:
        click.echo(f"{finding.state:<8} {finding.subject}: {printable(finding.text)}")
        if finding.remedy:
            click.echo(f"         -> {finding.remedy}")
    return int(any(finding.state == "problem" for finding in findings))


@construir.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@configured
def status_command(settings: Config, as_json: bool) -> None:
    """Say what waits and why, what runs, and how much room there is."""
    spool = Spool.find(settings.spool_path())
    summary, done = status.summary(spool, settings.spool.min_free), len(spool.names("done"))
    runner = status.runner(spool)
    if as_json:
        told = {**msgspec.to_builtins(summary), "done": done, "runner": msgspec.to_builtins(runner)}
        click.echo(msgspec.json.encode(told).decode())
        return
    table = Table("state", "jobs", "first", box=None)
    table.add_row("queue", str(summary.waiting), summary.queue[0] if summary.queue else "")
    table.add_row("running", str(len(summary.running)), summary.running[0].job if summary.running else "")
    table.add_row("done", str(done), "")
    Console().print(table)
    for line in filter(None, (summary.why, runner.pause_detail if runner else "")):
        click.echo(printable(line))
    click.echo(f"{summary.free_bytes // 2**20} MiB free in {spool.path}")


@construir.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@configured
def prune(settings: Config, dry_run: bool) -> None:
    """Delete the results that the limits of the configuration no longer allow, once, now."""
    spool = Spool.find(settings.spool_path())
    for job, reason in janitor.prune(spool, settings.janitor, settings.spool.min_free, datetime.now(UTC), dry_run):
        click.echo(f"{'would delete' if dry_run else 'deleted'} {job.id}: {reason}")


# -- contributors -----------------------------------------------------------------------------------------


@construir.group()
def user() -> None:
    """Who may send jobs."""


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))


@user.command("add")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of standard input.")
@configured
def user_add(settings: Config, name: str, password_stdin: bool) -> None:
    """Let NAME send jobs."""
    Spool.prepare(settings.spool_path())
    Users(settings.users_path()).add(name, _password(password_stdin))


@user.command("password")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of standard input.")
@configured
def user_password(settings: Config, name: str, password_stdin: bool) -> None:
    """Give NAME another password."""
    Users(settings.users_path()).set_password(name, _password(password_stdin))


@user.command("remove")
@click.argument("name")
@configured
def user_remove(settings: Config, name: str) -> None:
    """Let NAME send no more jobs; what was sent stays."""
    Users(settings.users_path()).remove(name)


@user.command("list")
@configured
def user_list(settings: Config) -> None:
    """Print the contributors' names, one a line."""
    for name in Users(settings.users_path()).names():
        click.echo(name)


construir.add_command(cli_images.image_group)
construir.add_command(cli_layers.layer_group)
cli_images.image_group.add_command(cli_shells.image_shell)
for by_hand in (*cli_jobs.COMMANDS, cli_shells.shell_command):
    construir.add_command(by_hand)
