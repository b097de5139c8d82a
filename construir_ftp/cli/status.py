"""`construir status`: what waits, what runs, and why not more."""

import os

import click
import msgspec
from rich.table import Table

from construir_ftp.appliance import claim, supervisor
from construir_ftp.cli.options import as_json_option, configured, print_json, printable
from construir_ftp.cli.servers import tell
from construir_ftp.cli.service import NOT_SERVED
from construir_ftp.cli.tables import print_table
from construir_ftp.config import Config
from construir_ftp.errors import ConstruirError
from construir_ftp.image import baseimage
from construir_ftp.jobs import inquiry, judging, nodes, pilots, places, service
from construir_ftp.jobs.service import Service
from construir_ftp.jobs.spool import Spool
from construir_ftp.jobs.status import Summary


@click.command("status")
@as_json_option
@configured
def status_command(settings: Config, as_json: bool) -> None:
    """Say what waits and why, what runs, and how much room there is."""
    spool = Spool.find(settings.spool_path())
    summary = inquiry.summary(spool, settings.spool.min_free)
    runner, pid = inquiry.runner(spool), claim.holder(spool.path)
    unable = _why_unable(settings, spool)
    if as_json:
        done = len(spool.names("done"))
        told = {"done": done, "runner": runner, "appliance": pid or None, "why_no_jobs": unable}
        print_json({**msgspec.to_builtins(summary), **told})
        return
    if server := os.environ.get("CONSTRUIR_SERVER"):
        tell(f"this is the appliance on this computer; of {server} tell: construir jobs, construir top")
    click.echo(_who_runs(settings, spool, pid))
    table = Table("state", "jobs", "oldest", box=None)
    for state in ("queue", "running", "done"):
        jobs = spool.names(state)
        table.add_row(state, str(len(jobs)), jobs[0] if jobs else "")
    print_table(table)
    for node in summary.nodes:
        why = f", takes no job: {node.why}" if node.why else ""
        click.echo(printable(f"node {node.name}: {node.busy} of {node.slots} machines run{why}"))
    no_uploads = f"uploads are refused: {summary.why_no_uploads}" if summary.why_no_uploads else ""
    details = (runner.pause_detail if runner else "", pilots.read(spool.path).detail)
    unchecked = judging.read(spool.path).detail
    lines = (_paused(summary), summary.why, *details, unable, no_uploads, unchecked, _decided(spool))
    for line in dict.fromkeys(filter(None, lines)):
        click.echo(printable(line))
    click.echo(f"{summary.free_bytes // 2**20} MiB free in {spool.path}")


def _paused(summary: Summary) -> str:
    return f"machines stand still: {summary.paused}" if summary.paused and not summary.why else ""


def _why_unable(settings: Config, spool: Spool) -> str:
    """Why this computer can run no job, for want of a base image; nothing where that is left to others."""
    is_known = settings.images.path or spool.path.stat().st_uid == os.geteuid()  # by default each user has their own
    if not is_known or nodes.why_drained(spool.path, places.LOCAL):
        return ""
    try:
        baseimage.find(settings.images_path(), settings.images.default)
    except ConstruirError as error:
        return f"no job can be run{' here' if len(nodes.living(spool.path)) > 1 else ''}: {error}"
    return ""


def _decided(spool: Spool) -> str:
    decided = service.read(spool.path)
    if decided == Service():
        return ""
    paused = "" if decided.runs_machines else "paused"
    out = "out of service" if decided.runs_machines or not decided.takes_uploads else ""
    return f"it is {' and '.join(filter(None, (out, paused)))} until: construir resume"


def _who_runs(settings: Config, spool: Spool, pid: int) -> str:
    if pid:
        return f"the appliance runs, as process {pid}"
    alone = [part for part in supervisor.PARTS if claim.holder(spool.path, part)]
    if not alone:
        return NOT_SERVED
    told = f"the appliance runs, in parts: {', '.join(alone)}"
    if missing := [part for part in supervisor.wanted(settings) if part not in alone]:
        told += f"\nof its parts these do not run: {', '.join(missing)}; see why with: construir check"
    return told
