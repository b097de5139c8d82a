"""`construir submit`, `watch`, `cancel`, `retry`: a job sent to a server, and what becomes of it."""

import functools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from construir_ftp import formats
from construir_ftp.cli import trust
from construir_ftp.cli.options import JOB_SOURCE, PATH, SizeType, Source, printable, settings_of
from construir_ftp.cli.output import Clock, bar
from construir_ftp.cli.results import bring
from construir_ftp.cli.screen import Screen
from construir_ftp.cli.servers import Reach, reaching, server_option, tell
from construir_ftp.client import destination, history, jobs, submit
from construir_ftp.client.address import Address
from construir_ftp.client.connection import Remote, plainly
from construir_ftp.client.history import Sent
from construir_ftp.client.status import Standing
from construir_ftp.client.submit import JobFile, Receipt
from construir_ftp.client.watch import Event, Printed, Restarted, Watch
from construir_ftp.errors import (
    ConfigError,
    ConstruirError,
    DamagedError,
    MissingError,
    RefusedError,
    UsageError,
    exit_code_of,
    one_line,
)
from construir_ftp.jobs import names
from construir_ftp.jobs.result import Result
from construir_ftp.pack import pack
from construir_ftp.pack.pack import Wrapping
from construir_ftp.units import Size

_FETCH = "Then bring the result into this directory, which holds no other job's; implies --wait."


def _without_result(_ctx: click.Context, _param: click.Parameter, directory: Path | None) -> Path | None:
    """A directory for the result of a job that has no id yet: whatever result is there is another's."""
    if directory is not None:
        destination.demand_empty(directory)
    return directory


def _following(command: click.decorators.FC) -> click.decorators.FC:
    """The options of commands that can go on to the end of what they have sent."""
    wait = click.option("--wait", is_flag=True, help="Follow the job to its end, and exit with its own code.")
    fetch = click.option("--fetch", type=PATH, callback=_without_result, help=_FETCH)
    return wait(fetch(command))


def _server_named(command: Callable[..., Any]) -> Callable[..., Any]:
    """The server of a command that needs one: as its last word, or by --server as in all the others."""

    @click.argument("last_word", metavar="[SERVER]", required=False)
    @click.option("--server", help="The same as SERVER.")
    @functools.wraps(command)
    def with_server(last_word: str | None, server: str | None, **options: Any) -> Any:
        if last_word and server and last_word != server:
            raise UsageError(f"two servers are named, {printable(last_word)} and {printable(server)}; name one")
        return command(server=last_word or server, **options)

    return with_server


@click.command("submit")
@click.argument("source", type=Source(JOB_SOURCE, directories=True))
@_server_named
@click.option("--space", type=SizeType(), default="64MiB", show_default=True, help="Free room for a directory's job.")
@click.option("--keep-times", is_flag=True, help="Keep when a directory's files were last changed.")
@click.option("--everything", is_flag=True, help="Leave nothing of a directory out.")
@_following
@reaching
def submit_command(
    reach: Reach, source: Path, space: Size, wait: bool, fetch: Path | None, keep_times: bool, everything: bool
) -> int:
    """Send SOURCE, a directory with run.sh or a job image, to SERVER, and print the job's id.

    SERVER is such as ftp://alice@build.example.org:2121, and CONSTRUIR_SERVER's unless given. The password is in
    ~/.netrc, or asked for. A directory is packed as by `construir pack`. What was cut goes on where it ended, with
    the same command.
    """
    how = Wrapping(space_bytes=int(space), keep_times=keep_times, everything=everything) if source.is_dir() else None
    server = reach.as_contributor(reach.address())
    with _packed(source, how) as job_file:
        receipt = _send(reach, server, job_file, source, how)
    return _follow(reach, server.address, receipt.id, fetch) if wait or fetch else 0


@click.command("retry")
@click.argument("job", metavar="ID")
@server_option
@_following
@reaching
def retry_command(reach: Reach, job: str, wait: bool, fetch: Path | None) -> int:
    """Send once more what the job ID was made of, from this computer and to the same server, and print the new id.

    It has to be there still, and the same to the last byte: otherwise it would be another job.
    """
    before = _remembered(reach, job)
    source = Path(before.source)
    if not source.exists():
        raise MissingError(f"{source}, which {before.id} was made of, is gone; it can't be sent again")
    server = reach.as_contributor(reach.address(before.id))
    with _packed(source, before.wrapping) as job_file:
        if job_file.sha256 != before.sha256:
            raise UsageError(f"{source} has changed since it was sent; to send it as it is: construir submit {source}")
        receipt = _send(reach, server, job_file, source, before.wrapping)
    return _follow(reach, server.address, receipt.id, fetch) if wait or fetch else 0


@click.command("watch")
@click.argument("job", metavar="ID")
@server_option
@reaching
def watch_command(reach: Reach, job: str) -> int:
    """Follow the job ID: its place in the queue, then what it prints; exit with its own code.

    ID may be the beginning of one, or the job's name: of several that were sent from here the newest is meant. Ctrl-C
    leaves the job alone.
    """
    where = reach.address(job)
    with plainly(where), reach.as_anyone(where).session() as ftp:
        job_id = jobs.resolve(ftp, job, reach.memory, prefer_live=True, tell=tell)
    return _follow(reach, where, job_id, None)


@click.command("cancel")
@click.argument("job", metavar="ID")
@click.option("--here", is_flag=True, help="As the operator: of the appliance on this computer, whoever sent it.")
@click.option("--config", "config_path", type=PATH, envvar="CONSTRUIR_CONFIG", help="With --here: its configuration.")
@click.option("--spool", type=PATH, envvar="CONSTRUIR_SPOOL", help="With --here: its spool.")
@server_option
@reaching
def cancel_command(reach: Reach, job: str, here: bool, config_path: Path | None, spool: Path | None) -> None:
    """Have the job ID ended, whether it waits or runs; only one's own, but for the operator.

    Where no server is named, and an appliance is on this computer, it is one of the operator's.
    """
    if here or (reach.is_nowhere(job) and _has_spool(config_path, spool)):
        # Imported here: contributors need nothing of what an appliance is made of.
        from construir_ftp.cli import service

        ended = service.cancel_here(settings_of(config_path, spool).spool_path(), job)
        tell(f"job {ended} is cancelled; its result will be in done/")
        return
    where = reach.address(job)
    with plainly(where), reach.as_contributor(where).session() as ftp:
        tell(submit.cancel(ftp, jobs.resolve(ftp, job, reach.memory, prefer_live=True)))


def _has_spool(config_path: Path | None, spool: Path | None) -> bool:
    settings = settings_of(config_path, spool)
    try:
        return (settings.spool_path() / "queue").is_dir()
    except ConfigError:  # there is no home directory that it could be in
        return False


# -- sending -------------------------------------------------------------------------------------------------


@contextmanager
def _packed(source: Path, wrapping: Wrapping | None) -> Iterator[JobFile]:
    """What is to be sent: the file itself, or one that is made of a directory, and gone afterwards."""
    if wrapping is None:
        yield JobFile.of(source, names.name_of(source))
        return
    with tempfile.TemporaryDirectory(prefix="construir-") as place:
        target = Path(place) / f"{names.name_of(source)}.img{formats.FORMATS[wrapping.codec].suffix}"
        with bar() as show:
            left_out = pack.pack_directory(source, target, wrapping, show)
        for words in left_out:
            tell(f"left out: {words}")
        yield JobFile.of(target, target.name)


def _send(reach: Reach, server: Remote, job_file: JobFile, source: Path, wrapping: Wrapping | None) -> Receipt:
    """Send it and print the id, remembering what it was made of."""
    where = str(server.address)
    was_begun = reach.memory.begin(where, job_file.name, job_file.sha256)
    try:
        with bar() as show, plainly(server.address):
            told = functools.partial(show, f"sending {job_file.name}")
            submission = submit.Submission(
                server, job_file, reach.patience(), lambda sent: told(sent, job_file.size_bytes)
            )
            receipt = submission.send(was_begun=was_begun)
    except KeyboardInterrupt:
        tell("stopped; the server keeps what has come for a while, and the same command goes on there")
        raise
    except RefusedError:
        reach.memory.end(where, job_file.name)
        raise
    reach.memory.end(where, job_file.name)
    click.echo(receipt.id)
    tell(f"accepted, {receipt.place}")
    job = Sent(
        id=receipt.id,
        server=where,
        source=str(source.resolve()),
        wrapping=wrapping,
        sha256=job_file.sha256,
        time=datetime.now(UTC),
    )
    try:
        reach.memory.remember(job)
    except ConstruirError as error:
        tell(str(error))
    return receipt


def _remembered(reach: Reach, word: str) -> Sent:
    found = reach.memory.find(word)
    if not found:
        what = f"no job {printable(word)} was sent from this computer by this user, as far as is remembered"
        raise UsageError(f"{what}; send its files: construir submit DIR")
    history.newest(word, [job.id for job in found], tell)
    return found[-1]


# -- following -----------------------------------------------------------------------------------------------


def _follow(reach: Reach, where: Address, job_id: str, fetch: Path | None) -> int:
    """Show the job to its end, and then bring its result, if that is wanted; the exit code it comes to."""
    try:
        ended = _show(reach, where, job_id)
        tell(one_line(f"{ended.status}: {ended.reason}"))
        if lacking := ended.lacking():
            tell(lacking)
        proved = trust.prove(reach, where, job_id) if fetch is None else bring(reach, where, job_id, fetch, ())
        if proved and (proved.result.status, proved.result.exit_code) != (ended.status, ended.exit_code):
            raise DamagedError(f"{where} has shown another end than the one that was signed: {proved.result.status}")
    except KeyboardInterrupt:
        more = f"{job_id}{reach.options()}"
        tell(f"detached; the job goes on. Look again: construir watch {more}; end it: construir cancel {more}")
        raise
    return exit_code_of(ended.status, ended.exit_code)


def _show(reach: Reach, where: Address, job_id: str) -> Result:
    """Print what happens: the job's own output alone on standard output."""
    watch, told = Watch(reach.as_anyone(where), job_id), ""
    with plainly(where), closing(Screen()) as screen, closing(Clock()) as clock:
        for event in watch.events(reach.patience()):
            words = _words(event) if isinstance(event, Standing) else ""
            if not words or words != told:
                clock.show("")
            if isinstance(event, Printed):
                screen.show(event.data)
                continue
            screen.rest()
            if isinstance(event, Result):
                return event
            if isinstance(event, Restarted):
                tell("the server had to start the job again, by no fault of its own; here is all that it prints")
            elif words and words != told:
                told = words
                tell(words)
            clock.show(*_waits_for(event))
    raise AssertionError("a watch ends with the job's end")


def _waits_for(event: Event) -> tuple[str, str]:
    """What goes on meanwhile that prints nothing, and how far it is: it waits, or something is made ready for it."""
    if not isinstance(event, Standing) or event.state == "done":
        return "", ""
    if event.state == "waiting":
        return f"waiting, number {event.place} in the queue", ""
    return printable(event.why), printable(event.progress)


def _words(now: Standing) -> str:
    """How a job stands, as a line; none for one that is done, since its end is told."""
    why = f"; {now.why}" if now.why else ""
    if now.state == "waiting":
        return f"waiting, number {now.place} in the queue{why}"
    if now.state == "running":
        return ("being cancelled" if now.cancelled else "running") + why
    return ""
