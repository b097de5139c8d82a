"""What the end of a machine means: how its job ended, or that the job did not get its run."""

import msgspec

from construir_ftp.jobs.result import Claims, Status
from construir_ftp.machine.vm import Ending


class Outcome(msgspec.Struct, frozen=True):
    """How a job ended; `exit_code` is run.sh's, where it came to one."""

    status: Status
    reason: str
    exit_code: int | None = None


class OurFault(msgspec.Struct, frozen=True):
    """The job did not get its run, and not by its own doing."""

    reason: str


def judge(ending: Ending) -> Outcome | OurFault:
    """What the machine's end means for the job. Only a job that was given its chance can fail."""
    claims = ending.claims
    if ending.killed is None and ending.status:
        return OurFault(_qemu_died(ending))
    if claims.exit_code is not None or claims.error is not None:
        return _judge_claims(claims, ending)
    if ending.killed == "timeout":
        return Outcome("timeout", "run.sh had not ended at the deadline; the machine was killed")
    if ending.killed == "idle-timeout":
        return Outcome("idle-timeout", "run.sh printed nothing for too long; the machine was killed")
    if not claims.ready or ending.killed == "boot-timeout":
        how = "was killed at its boot deadline" if ending.killed else "ended by itself"
        return OurFault(f"the machine {how} before it came to run.sh; see console.log")
    if not claims.started:
        return Outcome("no-result", "the machine ended while it mounted the job's image; see console.log")
    return Outcome("no-result", "the machine ended before run.sh did: it was switched off, restarted, or crashed")


def _qemu_died(ending: Ending) -> str:
    return f"QEMU ended with status {ending.status}: {ending.words or 'it said nothing'}"


def _judge_claims(claims: Claims, ending: Ending) -> Outcome:
    if claims.error is not None:
        return Outcome("failed", f"run.sh was not run: {claims.error}")
    code = claims.exit_code
    said = f"run.sh ended with exit status {code}"
    if ending.killed == "power-off-timeout":
        said += ", but the machine then did not switch itself off and was killed"
    elif not claims.clean:
        said += ", but the machine ended before the image was unmounted"
    if code == 0:
        return Outcome("success" if claims.clean else "no-result", said, code)
    return Outcome("failed", said, code)
