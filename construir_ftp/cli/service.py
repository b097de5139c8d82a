"""`construir drain`, `pause`, `resume` and `delete`: what an operator does to a working appliance, by its spool."""

import time
from pathlib import Path

import click

from construir_ftp.appliance import claim
from construir_ftp.cli.options import configured, printable
from construir_ftp.cli.servers import tell
from construir_ftp.client.history import matching
from construir_ftp.config import Config
from construir_ftp.errors import MissingError, UsageError
from construir_ftp.jobs import inquiry, references, service
from construir_ftp.jobs.job import OPERATOR
from construir_ftp.jobs.service import DRAINED, Service
from construir_ftp.jobs.spool import Job, Spool

NOT_SERVED = "no appliance runs here; start it with: construir serve"
_LOOK_S = 0.5
_LIVE, _DONE = ("queue", "running"), ("done",)


@click.command("drain")
@click.option("--queue", "with_queue", is_flag=True, help="Have the jobs that wait run, too.")
@click.option("--no-wait", is_flag=True, help="Don't wait until nothing runs any more.")
@configured
def drain_command(settings: Config, with_queue: bool, no_wait: bool) -> None:
    """Take the appliance out of service: no uploads are taken, no jobs are started, and those that run end.

    Jobs that wait stay in the queue. Results can still be fetched. Waits until nothing runs; Ctrl-C ends only the
    waiting. The appliance stays so, also if it is started again, until `construir resume`. It ends a pause.
    """
    spool = Spool.find(settings.spool_path())
    stood_still = not service.read(spool.path).runs_machines
    service.decide(spool.path, Service(takes_uploads=False, takes_jobs=with_queue, why=DRAINED))
    spool.wake()
    taken = "no uploads are taken" if with_queue else "no uploads are taken, and no jobs started"
    click.echo(f"{taken}; machines go on, to end" if stood_still else taken)
    if no_wait:
        _say_whether_it_runs(spool)
        return
    try:
        _wait_until_idle(spool, with_queue=with_queue)
    except KeyboardInterrupt:
        tell("waits no more; the appliance stays out of service until: construir resume")
        raise


def _wait_until_idle(spool: Spool, *, with_queue: bool) -> None:
    told = ""
    time.sleep(_LOOK_S)  # a runner that has asked just before takes one more job, which is in running/ by then
    while True:
        running, waiting = len(spool.names("running")), len(spool.names("queue"))
        if not running and not (with_queue and waiting):
            _say_idle(spool, waiting)
            return
        if inquiry.runner(spool) is None:
            click.echo(f"no runner is there: {running} would run at the next start, {waiting} wait")
            return
        if (now := f"{running} run, {waiting} wait") != told:
            told = now
            click.echo(told)
        time.sleep(_LOOK_S)


def _say_idle(spool: Spool, waiting: int) -> None:
    if is_served(spool):
        click.echo(f"nothing runs, {waiting} wait; stop construir serve now, or go on with: construir resume")
    else:
        click.echo(f"nothing runs, {waiting} wait; go on with: construir resume")
        click.echo(f"but {NOT_SERVED}")


@click.command("pause")
@configured
def pause_command(settings: Config) -> None:
    """Have all machines stand still, and start no jobs; uploads are taken.

    The jobs that run lose nothing, and their time limits stand still, too. It stays so until `construir resume`; if the
    appliance is stopped or started again meanwhile, they begin anew after that. Uploads that `construir drain` has had
    refused before stay refused.
    """
    spool = Spool.find(settings.spool_path())
    decided = service.read(spool.path).paused()
    service.decide(spool.path, decided)
    spool.wake()
    uploads = "" if decided.takes_uploads else f"; uploads stay refused: {decided.refusal()}"
    click.echo(f"machines stand still, and no jobs are started{uploads}; go on with: construir resume")
    _say_whether_it_runs(spool)


@click.command("resume")
@configured
def resume_command(settings: Config) -> None:
    """Take uploads and jobs again, after `construir drain` or `pause`; what stood still goes on."""
    spool = Spool.find(settings.spool_path())
    before = service.read(spool.path)
    service.decide(spool.path, Service())
    spool.wake()
    click.echo(_again(before))
    _say_whether_it_runs(spool)


def _again(before: Service) -> str:
    """What a resume has changed."""
    if before == Service():
        return "uploads and jobs were being taken already"
    if before.runs_machines:
        return "uploads and jobs are taken again"
    if before.takes_uploads:
        return "machines go on, and jobs are started again"
    return "uploads and jobs are taken again, and machines go on"


def is_served(spool: Spool) -> bool:
    """Whether an appliance works on it, or a runner by itself."""
    return bool(claim.holder(spool.path)) or inquiry.runner(spool) is not None


def _say_whether_it_runs(spool: Spool) -> None:
    if not is_served(spool):
        click.echo(f"but {NOT_SERVED}")


@click.command("delete")
@click.argument("jobs", metavar="ID...", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Also what waiting or running jobs depend on.")
@configured
def delete_command(settings: Config, jobs: tuple[str, ...], force: bool) -> None:
    """Delete results of this computer's appliance, whoever sent the jobs: ID is one, or what begins only one.

    A job that waits or runs is ended by `construir cancel --here`; its result can be deleted then.
    """
    spool = Spool.find(settings.spool_path())
    doomed = [find(spool, word, _DONE) for word in jobs]
    needed = set() if force else references.results(spool) & set(doomed)
    if needed:
        raise UsageError(f"jobs that wait or run depend on {', '.join(sorted(needed))}; --force deletes all the same")
    for job_id in doomed:
        spool.delete(Job(spool.state("done") / job_id))
        click.echo(f"deleted {printable(job_id)}")


def cancel_here(place: Path, word: str) -> str:
    """Have a job in the spool at `place` ended, whoever sent it; its id. Raises MissingError, UsageError."""
    spool = Spool.find(place)
    job_id = find(spool, word, _LIVE)
    try:
        spool.cancel(job_id, OPERATOR)
    except FileNotFoundError as error:
        raise MissingError(f"job {job_id} has ended meanwhile") from error
    return job_id


def find(spool: Spool, word: str, states: tuple[str, ...]) -> str:
    """The id of the one job in these states that `word` means: an id, what one begins with, or a job's name."""
    found = _matching(spool, word, states)
    if not found:
        raise MissingError(
            f"there is no job {printable(word)} in {_places(states)} here{_elsewhere(spool, word, states)}"
        )
    if len(found) > 1:
        raise UsageError(f"{printable(word)} may be any of {', '.join(found[-5:])}; say which")
    return found[0]


def _matching(spool: Spool, word: str, states: tuple[str, ...]) -> list[str]:
    return matching(word, sorted({name for state in states for name in spool.names(state)}))


def _places(states: tuple[str, ...]) -> str:
    return " or ".join(f"{state}/" for state in states)


def _elsewhere(spool: Spool, word: str, states: tuple[str, ...]) -> str:
    """What to add about a job that `word` means, and that is not in these states: how it stands, and what ends it."""
    other = _LIVE if states == _DONE else _DONE
    if len(found := _matching(spool, word, other)) != 1:
        return ""
    if other == _DONE:
        return f"; it is done, and its result is deleted by: construir delete {found[0]}"
    return f"; it waits or runs, and is ended by: construir cancel --here {found[0]}"
