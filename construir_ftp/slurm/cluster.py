"""Slurm, by its commands: sbatch, squeue, scancel, as Debian 12 (22.05) and Debian 13 (24.11) have them.

Each raises ConstruirError where Slurm doesn't do what it is asked. Nothing here knows why a pilot is wanted.
"""

import logging
import os
import tempfile
from collections.abc import Sequence
from typing import IO, Literal, NamedTuple

import msgspec

from construir_ftp import process, schema
from construir_ftp.errors import CommandError, ConstruirError
from construir_ftp.process import Argv

log = logging.getLogger("construir.pilots")

# Without an answer Slurm's own commands give up after 9 s (22.05), or 16 s.
_PATIENCE_S = 60.0
# What of our own environment is for Slurm's commands, or for the node, which inherits it (sbatch(1), --export).
_INHERITED = ("SLURM_CONF", "HOME", "USER", "LOGNAME")
# squeue(1), "JOB STATE CODES".
_WAITS = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"})
_IS_OVER = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY"}
    | {"PREEMPTED", "REVOKED", "TIMEOUT"}
)


class Listed(NamedTuple):
    """What Slurm says of one of its jobs; `words` are Slurm's own for the state."""

    job: int
    state: Literal["waiting", "running", "over"]
    words: str
    reason: str


class _Job(msgspec.Struct, frozen=True):
    """As squeue has it: the state is a word in 22.05, and a list of them in 24.11."""

    job_id: int
    name: str = ""
    job_state: str | tuple[str, ...] = ()
    state_reason: str | None = ""


class _Answer(msgspec.Struct, frozen=True):
    jobs: tuple[_Job, ...]
    errors: tuple[msgspec.Raw, ...] = ()


def submit(argv: Sequence[str]) -> int:
    """Give Slurm a job by this command; its number."""
    told = run(argv)
    number = told.strip().partition(";")[0]
    if not number.isdecimal():
        raise ConstruirError(f"sbatch names no job: {told.strip()[:200]!r}")
    return int(number)


def listed(prefix: str) -> dict[str, Listed]:
    """The jobs of this user that are called so, by the rest of their names."""
    found = {}
    for job in _ask().jobs:
        if job.name.startswith(prefix):
            found[job.name.removeprefix(prefix)] = _read(job)
    return found


def _ask() -> _Answer:
    # In a file, for 22.05 tells of every job there is, whichever it is asked for: 3 KiB each. 24.11 tells of those that
    # have ended only if it is asked for all states.
    with tempfile.TemporaryFile() as file:
        run(["squeue", "--json", "--me", "--states=all"], stdout=file)
        file.seek(0)
        try:
            answer = schema.from_json(file.read(), _Answer)
        except msgspec.MsgspecError as error:
            raise ConstruirError(f"squeue --json can't be understood: {error}") from error
    # squeue of 22.05 ends well, with an empty list and this, where no slurmctld answers.
    if answer.errors:
        raise ConstruirError(f"squeue: {bytes(answer.errors[0]).decode(errors='replace')}")
    return answer


def _read(job: _Job) -> Listed:
    words = (job.job_state,) if isinstance(job.job_state, str) else job.job_state
    reason = job.state_reason or ""
    return Listed(job.job_id, _state(frozenset(words)), ", ".join(words), "" if reason == "None" else reason)


def _state(words: frozenset[str]) -> Literal["waiting", "running", "over"]:
    if words & _WAITS:
        return "waiting"
    # What is completing may be queued anew yet, where its computer failed or was taken from it.
    return "over" if words & _IS_OVER and "COMPLETING" not in words else "running"


def drain(job: int) -> None:
    """Send SIGTERM to what runs as this job: it ends once it has nothing to do any more."""
    run(["scancel", "--batch", "--signal=TERM", str(job)])


def withdraw(job: int) -> None:
    """End this job if it waits, and leave it alone if it runs."""
    run(["scancel", "--state=PENDING", str(job)])


def run(argv: Argv, stdout: IO[bytes] | None = None) -> str:
    """What one of its commands says. Raises ConstruirError, in the words of the command."""
    try:
        return process.run(argv, timeout_s=_PATIENCE_S, env=_environment(), stdout=stdout)
    except CommandError as error:
        log.debug("%s", error)
        if not error.said:
            raise
        # Its own words are enough for whoever has to mend it: the command is as the configuration has it.
        raise ConstruirError("; ".join(error.said.splitlines())) from error


def _environment() -> dict[str, str]:
    return process.environment(**{name: os.environ[name] for name in _INHERITED if name in os.environ})
