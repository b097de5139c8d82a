"""`construir serve node`, `construir nodes` and `node`: other computers that run jobs of an appliance, by its spool."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import click
import msgspec
from rich.table import Table

from construir_ftp import locks
from construir_ftp.appliance import supervisor
from construir_ftp.appliance.sd_notify import Manager
from construir_ftp.cli.options import Commands, as_json_option, configured, print_json, printable
from construir_ftp.cli.service import NOT_SERVED
from construir_ftp.cli.tables import print_table
from construir_ftp.config import Config
from construir_ftp.errors import UsageError
from construir_ftp.jobs import inquiry, nodes, places
from construir_ftp.jobs.nodes import Machines, Offered, Pulse
from construir_ftp.jobs.spool import Spool
from construir_ftp.jobs.status import RunnerReport
from construir_ftp.runner.drain import Stop, Watch
from construir_ftp.runner.runner import Runner
from construir_ftp.trust import node_key
from construir_ftp.trust.seal import Seal

_DIGEST_CHARACTERS = 12
_SCRATCH_PREFIX = "construir-node-"


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A node, as it is told of."""

    name: str
    state: str
    report: RunnerReport
    offered: Offered | None
    pulse: Pulse | None


def serve_node(settings: Config, name: str | None, slots: int | None) -> None:
    """Run jobs as the node of that name, so many at once, until told to stop; anew, if others were given its jobs."""
    if name is None:
        raise UsageError("construir serve node: give the node a name: --name NAME")
    nodes.check_name(name)
    if slots is not None:
        settings = msgspec.structs.replace(settings, runner=msgspec.structs.replace(settings.runner, slots=slots))
    manager = Manager.of(os.environ)
    watch = Watch(manager.ready, manager.alive, manager.alive_every_s, manager.patient)
    with supervisor.listening() as stop:
        is_over = False
        while not is_over:
            spool = Spool.find(settings.spool_path(), name)
            with _scratch(settings.nodes.scratch) as spool.claims.scratch:
                runner = Runner(spool, settings, name)
                runner.serve(Stop(stop.socket, stop.interrupting), watch)
            is_over = not runner.is_lost


def _scratch(parent: str) -> AbstractContextManager[Path | None]:
    """A place for the disks of jobs, where one is wanted."""
    return locks.scratch_directory(Path(parent), _SCRATCH_PREFIX) if parent else nullcontext()


@click.command("nodes")
@as_json_option
@configured
def nodes_command(settings: Config, as_json: bool) -> None:
    """Say which computers run jobs of this appliance, what can be had there, and what they do."""
    spool = Spool.find(settings.spool_path())
    found = list(_every(spool))
    if as_json:
        print_json(found)
        return
    front = nodes.offered(spool.path, places.LOCAL)
    table = Table("node", "state", "busy", "slots", "cpus", "memory", "load", "machines", box=None)
    for told in found:
        table.add_row(*_row(told, front))
    print_table(table)
    for line in nodes.other_names(spool.path):
        click.echo(printable(line))
    if not nodes.living(spool.path):
        click.echo(f"which of them live, nobody knows: {NOT_SERVED}")


def _every(spool: Spool) -> Iterator[Told]:
    living = nodes.living(spool.path)
    for name in nodes.names(spool.path):
        report = inquiry.of_node(spool, name)
        yield Told(
            name=name,
            state=_state(spool, name) if name in living else "gone",
            report=report,
            offered=nodes.offered(spool.path, name),
            pulse=nodes.pulse(spool.path, name),
        )


def _state(spool: Spool, name: str) -> str:
    return node_key.why_not(spool.path, name) or inquiry.node_summary(spool, name).why or "there"


def _row(told: Told, front: Offered | None) -> list[str]:
    name, state, busy, slots = told.name, printable(told.state), len(told.report.busy), told.report.slots
    if told.offered is None or told.state == "gone":
        return [name, state, "", "", "", "", "", ""]
    load = f"{told.pulse.load:.1f}" if told.pulse else ""
    memory = f"{told.offered.memory_bytes >> 20} MiB"
    machines = ", ".join(
        f"{base} {_in_words(kind)}"
        + (" refused: not the front's" if nodes.has_another_image(base, told.offered, front) else "")
        for base, kind in sorted(told.offered.bases.items())
    )
    return [name, state, str(busy), str(slots), str(told.offered.processors), memory, load, printable(machines)]


def _in_words(kind: Machines) -> str:
    digest = kind.digest.removeprefix("sha256:")[:_DIGEST_CHARACTERS]
    return f"{digest} ({kind.accelerator})" if kind.accelerator else digest


@click.group("node", cls=Commands)
def node_group() -> None:
    """One of the computers that run jobs of this appliance."""


@node_group.command("drain")
@click.argument("name")
@click.option("--why", default="by the operator", help="What is told of it.")
@configured
def drain_node(settings: Config, name: str, why: str) -> None:
    """Have a node take no more jobs. Those that it has come to their end. It stays so, also if it starts again."""
    spool = Spool.find(settings.spool_path())
    nodes.drain(spool.path, name, why)
    spool.wake()
    click.echo(f"{name} takes no more jobs; go on with: construir node resume {name}")


@node_group.command("resume")
@click.argument("name")
@configured
def resume_node(settings: Config, name: str) -> None:
    """Have a node take jobs again."""
    spool = Spool.find(settings.spool_path())
    nodes.resume(spool.path, name)
    spool.wake()
    click.echo(f"{name} takes jobs")


@node_group.command("admit")
@click.argument("name")
@click.option("--fingerprint", help="Admit it only if its key has this one, as its log says it.")
@configured
def admit_node(settings: Config, name: str, fingerprint: str | None) -> None:
    """Certify the key of a node, so that it takes jobs, and signs their results. It takes the front's key to do so."""
    path, key = settings.spool_path(), node_key.asking(settings.spool_path(), name)
    if key is not None and fingerprint not in (None, key.fingerprint):
        raise UsageError(f"the key of node {name} has another fingerprint: {key.fingerprint}")
    seal = Seal.of(path, settings.trust)
    made = node_key.admit(path, name, key, seal.key, seal.host)
    click.echo(f"{name} is admitted; its key is {made.key.fingerprint}, which its log says, too")
    if seal.key.path.is_relative_to(path):
        click.echo(
            f"warning: nodes can read the front's own key, {seal.key.path}; move it, and set trust.key", err=True
        )


@node_group.command("revoke")
@click.argument("name")
@configured
def revoke_node(settings: Config, name: str) -> None:
    """Have a node take no more jobs, and nobody believe what its key has signed or will sign, such as after a theft."""
    path = settings.spool_path()
    key = node_key.revoke(path, name)
    nodes.withdraw(path, name)
    click.echo(f"the key of {name}, {key.fingerprint}, is revoked; no result that it has signed is proved any more")
    click.echo("if its computer was stolen, have it no longer mount the spool either", err=True)
