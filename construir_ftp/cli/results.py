"""`construir jobs`, `fetch`, `diff`: what there is on a server, brought, and compared."""

import tempfile
from pathlib import Path

import click
import msgspec
from rich.table import Table
from rich.text import Text

from construir_ftp import errors
from construir_ftp.cli import trust
from construir_ftp.cli.options import PATH, as_json_option, on_one_line, print_json, printable
from construir_ftp.cli.output import bar, file_line, file_objects
from construir_ftp.cli.servers import Reach, reaching, server_option, tell
from construir_ftp.cli.tables import print_table
from construir_ftp.cli.trust import Brought
from construir_ftp.client import destination, diff, fetch, jobs, status
from construir_ftp.client.address import Address
from construir_ftp.client.connection import plainly
from construir_ftp.client.diff import Contrast, Side
from construir_ftp.client.jobs import JobLine
from construir_ftp.errors import ConfigError, UsageError
from construir_ftp.jobs import modes
from construir_ftp.trust.keys import PublicKey
from construir_ftp.trust.verify import Proof


@click.command("jobs")
@server_option
@click.option("--last", type=click.IntRange(0), default=20, show_default=True, help="How many of those that are done.")
@click.option("--mine", is_flag=True, help="Only what this program has sent from this computer.")
@as_json_option
@reaching
def jobs_command(reach: Reach, last: int, mine: bool, as_json: bool) -> None:
    """List what waits on the server, and why, what runs, and what is done; a * is before what was sent from here."""
    where = reach.address()
    with plainly(where), reach.as_anyone(where).session() as ftp:
        lines = jobs.all_of(ftp, reach.memory, last=last, mine_only=mine)
    if as_json:
        print_json(lines)
    else:
        _print_table(lines, "nothing that construir has sent from this computer" if mine else "nothing")


@click.command("fetch")
@click.argument("job", metavar="ID")
@click.option("-o", "output", type=PATH, help="Directory for the result; named by the job's id unless given.")
@click.option(
    "--only",
    multiple=True,
    metavar="WHAT",
    help="output, console, image, artifacts, or a pattern of names such as '*.log'; may be given several times.",
)
@server_option
@reaching
def fetch_command(reach: Reach, job: str, output: Path | None, only: tuple[str, ...]) -> None:
    """Bring the result of the job ID, and verify it as `construir verify` does; prints the directory.

    What was brought before is left alone, what was cut goes on where it ended. With --only the files that prove it come
    along, see construir verify --partial. A directory that holds another job's result is refused.
    """
    if "://" in job:
        raise UsageError(f"{printable(job)} is no ID; name the server by --server, or by CONSTRUIR_SERVER")
    where = reach.address(job)
    with plainly(where), reach.as_anyone(where).session() as ftp:
        job_id = jobs.resolve(ftp, job, reach.memory, tell=tell)
    directory = output or Path(job_id)
    bring(reach, where, job_id, directory, only)
    click.echo(directory)
    if lacking := "" if only else destination.result(directory).lacking():
        tell(lacking)


@click.command("diff")
@click.argument("old", metavar="ID_OR_DIR")
@click.argument("new", metavar="ID_OR_DIR")
@as_json_option
@server_option
@reaching
def diff_command(reach: Reach, old: str, new: str, as_json: bool) -> int:
    """Say what two runs left differently: end, output, files of their images; exit with 1 if they differ.

    Each is the ID of a job on the server, or a directory that a result was brought to, by construir fetch or run. What
    could be both is a directory if no server is named, or if it is written with a /, as in ./NAME.
    """
    with tempfile.TemporaryDirectory(prefix="construir-") as place:
        found = diff.compare(*(_side(reach, word, Path(place) / name) for word, name in ((old, "old"), (new, "new"))))
    if as_json:
        print_json(
            {
                **msgspec.to_builtins(msgspec.structs.replace(found, files=[])),
                "files": file_objects(found.files),
            }
        )
    else:
        click.echo("\n".join(_lines(found)))
    return int(not found.is_same())


# -- bringing ------------------------------------------------------------------------------------------------


def bring(
    reach: Reach,
    where: Address,
    job_id: str,
    directory: Path,
    only: tuple[str, ...],
    named: list[PublicKey] | None = None,
) -> Proof | None:
    """Bring a result, or what of it is wanted, into `directory`, which may have some of it already, and prove it.

    Returns what was proved, if the server signs its results; see trust.prove, of `named` as well. Raises UsageError if
    the directory has another job's, UntrustedError and DamagedError if it can't be proved; what has come stays.
    """
    destination.demand_own(directory, job_id)
    server = reach.as_anyone(where)
    with plainly(where), server.session() as ftp:
        found = fetch.contents(ftp, job_id)
        image = status.result(ftp, job_id).image if only else None
    wanted = [*fetch.choose(found.items, only, image), *fetch.proving(found.items)]
    items = list({item.name: item for item in wanted}.values())
    _bring(reach, where, job_id, directory, items)
    is_all = not only and not found.refused
    brought = Brought(directory, frozenset(item.name for item in items), is_all)
    proved = trust.prove(reach, where, job_id, brought, named)
    _restore_modes(directory)
    if not only:
        fetch.demand_all(found.refused)
    return proved


def _restore_modes(directory: Path) -> None:
    """Only once the result is proved; where it isn't signed its result.json may be anything."""
    with errors.plainly(directory):
        modes.restore(directory, destination.result(directory))


def _bring(reach: Reach, where: Address, job_id: str, directory: Path, items: list[fetch.Item]) -> None:
    all_bytes, came = sum(item.size_bytes for item in items), 0
    with bar() as show, plainly(where):

        def add(more_bytes: int) -> None:
            nonlocal came
            came += more_bytes
            show(f"fetching {job_id}", came, all_bytes)

        fetch.Fetch(reach.as_anyone(where), job_id, directory, add).bring(items, reach.patience)


def _side(reach: Reach, word: str, directory: Path) -> Side:
    if Path(word).is_dir() and ("/" in word or reach.is_nowhere(word)):
        return diff.here(Path(word), directory)
    if reach.is_nowhere(word):
        raise ConfigError(
            f"{printable(word)} is no directory here, and may be a job's ID, but no server is named;"
            " set CONSTRUIR_SERVER"
        )
    where = reach.address(word)
    with plainly(where), reach.as_anyone(where).session() as ftp:
        job_id = jobs.resolve(ftp, word, reach.memory, tell=tell)
        items, ended = fetch.contents(ftp, job_id).items, status.result(ftp, job_id)
    _bring(reach, where, job_id, directory, diff.wanted(items, ended))
    return Side(ended, directory)


# -- showing -------------------------------------------------------------------------------------------------


def _print_table(lines: list[JobLine], none: str) -> None:
    table = Table("", "job", "state", "since (UTC)", box=None)
    for line in lines:
        since = f"{line.since:%Y-%m-%d %H:%M}" if line.since else ""
        cells = "*" if line.mine else "", line.id, _state(line), since
        table.add_row(*(Text(printable(cell)) for cell in cells))
    nothing = f"{none} waits, runs or is done there; to send a job: construir submit DIR"
    print_table(table, ["", *(on_one_line(_why(line)) for line in lines)], nothing)


def _state(line: JobLine) -> str:
    if line.state == "waiting":
        return f"waiting, {line.place}."
    if line.status == "failed" and line.exit_code is not None:
        return f"failed, {line.exit_code}"
    return line.status or line.state


def _why(line: JobLine) -> str:
    """The reason, where it says more than the status does."""
    says_no_more = line.why == f"run.sh ended with exit status {line.exit_code}"
    return "" if line.status == "success" or says_no_more else line.why


def _lines(found: Contrast) -> list[str]:
    lines = ["the same, but for times"] if found.is_same() else []
    lines += [f"~ {fact.what} {printable(fact.old)} -> {printable(fact.new)}" for fact in found.facts]
    lines += [printable(line) for line in found.output]
    lines += ["... and more"] if found.output_is_cut else []
    lines += [f"files: {len(found.files)}"] if found.files else []
    lines += [f"  {file_line(file, without='modified_ns')}" for file in found.files]
    lines += [f"files: {found.touched} more differ in nothing but their time"] if found.touched else []
    return lines + ([f"files: not compared: {found.files_unknown}"] if found.files_unknown else [])
