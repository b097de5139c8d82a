"""Whether jobs and uploads are taken, and how machines run: what the spool says at any moment, for anyone to read."""

from pathlib import Path
from typing import NamedTuple

from construir_ftp.jobs import judging, service
from construir_ftp.jobs.status import NodeSummary, RunnerReport, Summary

_MACHINES = {"kvm": "run by KVM", "tcg": "are emulated, which is slow", "uml": "are user-mode Linux"}


class Finding(NamedTuple):
    """A line of the appliance's health: "ok", "warning" or "problem", of what, and in words that anyone may read."""

    state: str
    subject: str
    text: str


def look(spool: Path, summary: Summary, report: RunnerReport | None) -> list[Finding]:
    """What is known; `report` is the runner's, None where there is none."""
    machines = [_machines(report)] if report and report.accelerator else []
    return [_jobs(spool, report), _uploads(summary), *machines, *map(_node, summary.nodes)]


def _node(node: NodeSummary) -> Finding:
    if node.why:
        return Finding("warning", f"Node {node.name}", f"takes no job: {node.why}")
    return Finding("ok", f"Node {node.name}", f"{node.busy} of {node.slots} machines run")


def _jobs(spool: Path, report: RunnerReport | None) -> Finding:
    decided = service.read(spool)
    if report is None:
        return Finding("problem", "Jobs", "no runner is there to run jobs")
    if not decided.takes_jobs:
        return Finding("warning", "Jobs", f"none is started: {decided.why}")
    if report.pause:
        return Finding("problem", "Jobs", f"no job is taken at the moment: {report.pause}")
    return Finding("ok", "Jobs", "are taken as they come")


def _uploads(summary: Summary) -> Finding:
    if summary.why_no_uploads:
        state = "problem" if summary.why_no_uploads == judging.NO_JUDGE else "warning"
        return Finding(state, "Uploads", f"are refused: {summary.why_no_uploads}")
    return Finding("ok", "Uploads", "are accepted")


def _machines(report: RunnerReport) -> Finding:
    how = _MACHINES.get(report.accelerator or "", f"run by {report.accelerator}")
    return Finding("ok", "Machines", f"{how}{', cloned from one that has booted' if report.warm else ''}")
