"""`construir user`: who may send jobs."""

import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import click

from construir_ftp.cli.options import Commands, as_json_option, configured, is_person_there, print_json
from construir_ftp.cli.servers import tell
from construir_ftp.client import address
from construir_ftp.config import Config
from construir_ftp.errors import UsageError
from construir_ftp.ftp.users import Users, demand_fit
from construir_ftp.jobs.spool import Spool


@click.group("user", cls=Commands)
def user_group() -> None:
    """Who may send jobs."""


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n") if sys.stdin else ""
    if not is_person_there():
        raise UsageError("there is no terminal to ask for a password on; use --password-stdin")
    while True:
        password = str(click.prompt("Password", hide_input=True))
        try:
            demand_fit(password)
        except UsageError as error:
            tell(f"{error}; choose another")
            continue
        if password == click.prompt("Repeat for confirmation", hide_input=True):
            return password
        tell("these are two different passwords; type one twice")


def _warn_of_netrc(password: str) -> None:
    if address.needs_quotes(password):
        tell(
            f"with {address.ODD} in it, a password is to be in quotes in ~/.netrc, with \\ before each quote and"
            " backslash; lftp knows no quotes there: give it LFTP_PASSWORD, with --env-password"
        )


def _mail_option(**how: Any) -> Callable[[Any], Any]:
    return click.option("--mail", metavar="ADDRESS", help="Where NAME gets mail when a job of theirs has ended.", **how)


def _keyring_option(command: Any) -> Any:
    return click.option(
        "--keyring",
        type=click.File("rb"),
        help="Public keys (gpg --export), one of which is to sign the Debian sources that NAME sends.",
    )(command)


def _warn_of_silence(settings: Config, mail: str) -> None:
    if mail and not settings.notify.tells_by_mail():
        click.echo("construir: no mail is sent until notify.smtp, or notify.sendmail, is set", err=True)


@user_group.command("add")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of standard input.")
@_mail_option(default="")
@_keyring_option
@configured
def user_add(settings: Config, name: str, password_stdin: bool, mail: str, keyring: BinaryIO | None) -> None:
    """Let NAME send jobs."""
    users = Users(settings.users_path())
    users.demand_new(name)
    password = _password(password_stdin)
    Spool.prepare(settings.spool_path())
    users.add(name, password, mail)
    _warn_of_netrc(password)
    if keyring is not None:
        users.set_keyring(name, keyring.read())
    _warn_of_silence(settings, mail)


@user_group.command("set")
@click.argument("name")
@_mail_option()
@_keyring_option
@click.option("--weight", type=int, help="So many jobs of NAME count as one when it comes to whose turn it is.")
@configured
def user_set(settings: Config, name: str, mail: str | None, keyring: BinaryIO | None, weight: int | None) -> None:
    """Change where NAME is told of the ends of their jobs, whose signature their Debian sources need, or their share.

    --mail '' is nowhere. An empty FILE, such as /dev/null, for --keyring: they need no signature any longer.
    """
    users = Users(settings.users_path())
    if mail is None and keyring is None and weight is None:
        raise UsageError("nothing to change; name it with --mail, --keyring or --weight")
    if weight is not None:
        users.set_weight(name, weight)
    if mail is not None:
        users.set_mail(name, mail)
        _warn_of_silence(settings, mail)
    if keyring is not None:
        users.set_keyring(name, keyring.read())


@user_group.command("password")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of standard input.")
@configured
def user_password(settings: Config, name: str, password_stdin: bool) -> None:
    """Give NAME another password."""
    users = Users(settings.users_path())
    users.demand_known(name)
    password = _password(password_stdin)
    users.set_password(name, password)
    _warn_of_netrc(password)


@user_group.command("remove")
@click.argument("name")
@configured
def user_remove(settings: Config, name: str) -> None:
    """Let NAME send no more jobs; what was sent stays."""
    Users(settings.users_path()).remove(name)


@user_group.command("list")
@click.option("--mail", "with_mail", is_flag=True, help="Each one's mail address, too.")
@as_json_option
@configured
def user_list(settings: Config, with_mail: bool, as_json: bool) -> None:
    """Print the contributors' names, one a line, and what each one's jobs weigh where that is not 1."""
    users = Users(settings.users_path())
    told = {name: users.mail(name) if with_mail else "" for name in users.names()}
    if as_json:
        print_json(told if with_mail else list(told))
    for name, mail in () if as_json else told.items():
        weight = f"weight {users.weight(name)}" if users.weight(name) != 1 else ""
        click.echo(" ".join(filter(None, (name, mail, weight))))
    if not told and not as_json:
        click.echo("construir: nobody may send jobs yet; to let somebody: construir user add NAME", err=True)
