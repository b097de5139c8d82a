"""What commands that speak to a server have in common: how it is found, and who logs in."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click
import msgspec
from click.core import ParameterSource

from construir_ftp.cli.options import PATH, DurationType, is_person_there, printable
from construir_ftp.client import address, history
from construir_ftp.client.address import Address
from construir_ftp.client.connection import Patience, Remote, Tls
from construir_ftp.client.history import Memory
from construir_ftp.errors import ConfigError, UsageError
from construir_ftp.units import Duration

_VARIABLE = "CONSTRUIR_SERVER"
_Command = Callable[..., Any]


class Reach(msgspec.Struct, frozen=True):
    """How servers are reached by a command: what its options, the environment and the memory of this computer say."""

    server: str | None
    ca_file: Path | None
    tls: Tls
    patience_s: float
    memory: Memory

    def address(self, word: str = "") -> Address:
        """The server named; else the one that the job `word` was sent to from here; else CONSTRUIR_SERVER's."""
        text = self._named(word)
        if text is None:
            raise ConfigError(f"no server is named; set {_VARIABLE}, such as ftp://alice@build.example.org:2121")
        where = address.parse(text)
        if self.tls == "never" and where.scheme != "ftp":
            ways = f"with it: --tls auto; in clear: {where.in_clear()}"
            raise UsageError(f"{where} insists on TLS, which --tls or CONSTRUIR_TLS says never to use; {ways}")
        return where

    def is_nowhere(self, word: str) -> bool:
        """Whether nothing names a server."""
        return self._named(word) is None

    def _named(self, word: str) -> str | None:
        known = [job.server for job in self.memory.find(word)[-1:]] if word else []
        return next(filter(None, [self.server, *known, os.environ.get(_VARIABLE)]), None)

    def as_anyone(self, where: Address) -> Remote:
        """A server, to look and to fetch."""
        return Remote(where, tls=self.tls, ca_file=self.ca_file)

    def as_contributor(self, where: Address) -> Remote:
        """A server, to send jobs; a password that ~/.netrc doesn't have is asked for on the terminal."""
        login = address.login_for(where, _ask if is_person_there() else None)
        return Remote(where, login, self.tls, self.ca_file)

    def patience(self) -> Patience:
        """For one errand; what goes wrong on the way is told."""
        return Patience(self.patience_s, tell)

    def options(self) -> str:
        """The options that another command needs too, as they are typed."""
        return f" --ca-file {self.ca_file}" if self.ca_file and "CONSTRUIR_CAFILE" not in os.environ else ""


def reaching(command: _Command) -> _Command:
    """Give a command the options that lead to a server, and hand it the Reach they come to."""

    @click.option(
        "--ca-file", type=PATH, envvar="CONSTRUIR_CAFILE", help="Certificates that prove the server's; has TLS used."
    )
    @click.option(
        "--tls",
        type=click.Choice(get_args(Tls)),
        default="auto",
        envvar="CONSTRUIR_TLS",
        show_default=True,
        help="Whether to use TLS with ftp://; auto is where the server offers it.",
    )
    @click.option(
        "--patience",
        type=DurationType(),
        default="5min",
        show_default=True,
        help="How long to try again when the connection was lost.",
    )
    @functools.wraps(command)
    def with_reach(
        *before: Any, server: str | None, ca_file: Path | None, tls: Tls, patience: Duration, **options: Any
    ) -> Any:
        named = click.get_current_context().get_parameter_source("ca_file") is ParameterSource.COMMANDLINE
        # Who names certificates for this command alone means to have them used; a variable is set for all servers.
        tls = "required" if named and tls == "auto" else tls
        return command(*before, Reach(server, ca_file, tls, float(patience), Memory(history.place())), **options)

    return with_reach


def server_option(command: _Command) -> _Command:
    """The server, for commands that are about a job: they know it by themselves if the job was sent from here."""
    text = "Where the job is, as ftp://HOST:PORT; else where it was sent from here, else CONSTRUIR_SERVER."
    return click.option("--server", help=text)(command)


def _ask(question: str, is_secret: bool) -> str:
    return str(click.prompt(printable(question), hide_input=is_secret, err=True))


def tell(text: str) -> None:
    """A line for whoever watches, not part of what the command is for."""
    click.echo(f"construir: {printable(text)}", err=True)
