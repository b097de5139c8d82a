"""What the end of a machine means: how its job ended, or that the machine failed.

A machine that failed says nothing of who is to blame: a job can bring one down, and so can its host. The runner tries
another, and then an empty one.
"""

import msgspec

from construir_ftp.jobs.result import Claims, Status
from construir_ftp.machine.vm import Ending

_LOST_WITHIN = (
    "run.sh ended with exit status 0, but not all that it wrote to a file system or device on its files found room"
)
_KILLED = "but the machine then did not switch itself off and was killed"


class Outcome(msgspec.Struct, frozen=True):
    """How a job ended; `exit_code` is run.sh's, where it came to one."""

    status: Status
    reason: str
    exit_code: int | None = None


class MachineFault(msgspec.Struct, frozen=True):
    """The job did not get its run, or not all that it wrote was taken."""

    reason: str


def judge(ending: Ending) -> Outcome | MachineFault:
    """What the machine's end means for the job. Only a job that was given its chance can fail."""
    claims = ending.claims
    if ending.killed is None and ending.status and not ending.chosen:
        return MachineFault(_died(ending))
    if claims.unwritten == "within" and claims.exit_code == 0:
        return Outcome("no-result", _LOST_WITHIN, 0)
    if claims.unwritten is not None and claims.exit_code == 0:
        return MachineFault(f"not all that was written to {claims.unwritten} was taken by the machine's disk")
    if claims.exit_code is not None or claims.error is not None:
        return _judge_claims(claims, ending)
    if ending.killed == "timeout":
        return Outcome("timeout", "run.sh had not ended at the deadline; the machine was killed")
    if ending.killed == "mount-timeout":
        return Outcome("failed", "run.sh was not run: the image was not mounted in time; the machine was killed")
    if ending.killed == "idle-timeout":
        return Outcome("idle-timeout", "run.sh printed nothing for too long; the machine was killed")
    if not claims.ready or ending.killed == "boot-timeout":
        how = "was killed at its boot deadline" if ending.killed else "ended by itself"
        return MachineFault(f"the machine {how} before it came to run.sh; see console.log")
    if not claims.started:
        return Outcome("no-result", "the machine ended while it mounted the job's image; see console.log")
    return Outcome("no-result", "the machine ended before run.sh did: it was switched off, restarted, or crashed")


def _died(ending: Ending) -> str:
    return f"its program ended with status {ending.status}: {ending.words or 'it said nothing'}"


def _judge_claims(claims: Claims, ending: Ending) -> Outcome:
    if claims.error is not None:
        return Outcome("failed", f"run.sh was not run: {claims.error}")
    code = claims.exit_code
    said = f"run.sh ended with exit status {code}"
    if ending.killed is not None:
        # What is killed was not seen to end, whatever it has said: it may have gone on writing.
        return Outcome("no-result" if code == 0 else "failed", f"{said}, {_KILLED}", code)
    if not claims.clean:
        said += ", but the machine ended before the image was unmounted"
    if code == 0:
        return Outcome("success" if claims.clean else "no-result", said, code)
    return Outcome("failed", said, code)
