"""What the end of a machine means: how its job ended, or that the machine failed.

A machine that failed says nothing of who is to blame: a job can bring one down, and so can its host. The runner tries
another, and then an empty one.
"""

import re
import signal

import msgspec

from construir_ftp.errors import one_line
from construir_ftp.jobs.result import Claims, Status
from construir_ftp.machine.ending import Ending
from construir_ftp.units import in_words

_LOST_WITHIN = (
    "run.sh ended with exit status 0, but not all that it wrote to a file system or device on its files found room"
)
_KILLED = "but the machine then did not switch itself off within {0} and was killed"
_ENDED_EARLY = "the machine ended before run.sh did"
# A shell's status of a command that a signal has ended (POSIX, "Exit Status for Commands"), and the highest signal.
_SIGNALLED, _MOST_SIGNALS = 128, 64
# What a shell ends with that did not find a program (POSIX, Shell Command Language, 2.8.2).
_NOT_FOUND = 127
_QUOTED_CHARACTERS = 120
# The last words of a kernel (kernel/reboot.c, kernel/panic.c), and what they mean.
_LAST_WORDS = (
    (rb"Kernel panic - not syncing: ([^\r\n]*)", "its kernel panicked ({0})"),
    (rb"reboot: Power down()", "it was switched off from within"),
    (rb"reboot: System halted()", "it was halted from within"),
    (rb"reboot: (?:Restarting system|machine restart)()", "it was restarted from within"),
)


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
    if ending.killed in ("timeout", "mount-timeout", "idle-timeout"):
        return _judge_deadline(ending)
    if not claims.ready or ending.killed == "boot-timeout":
        how = f"was killed after {in_words(ending.limit_s)}" if ending.killed else "ended by itself"
        return MachineFault(f"the machine {how}, before it came to run.sh; see console.log")
    if not claims.started:
        return Outcome("no-result", "the machine ended while it mounted the job's image; see console.log")
    return Outcome("no-result", _ended_early(ending.console_tail))


def _died(ending: Ending) -> str:
    return f"its program ended with status {ending.status}: {ending.words or 'it said nothing'}"


def _judge_deadline(ending: Ending) -> Outcome:
    limit = in_words(ending.limit_s)
    if ending.killed == "timeout":
        return Outcome("timeout", f"run.sh had not ended after {limit} (timeout); the machine was killed")
    if ending.killed == "idle-timeout":
        return Outcome("idle-timeout", f"run.sh printed nothing for {limit} (idle_timeout); the machine was killed")
    words = f"run.sh was not run: the image was not mounted within {limit}; the machine was killed"
    return Outcome("failed", words)


def _ended_early(console_tail: bytes) -> str:
    """What the guest's kernel has said of it last, which may be a lie like all that comes from there."""
    for pattern, meaning in _LAST_WORDS:
        if found := re.search(pattern, console_tail):
            quoted = one_line(found[1].decode(errors="replace"))[:_QUOTED_CHARACTERS]
            return f"{_ENDED_EARLY}: {meaning.format(quoted)}"
    return f"{_ENDED_EARLY}: it was switched off, restarted, or crashed"


def _judge_claims(claims: Claims, ending: Ending) -> Outcome:
    if claims.error is not None:
        return Outcome("failed", f"run.sh was not run: {claims.error}")
    code = claims.exit_code
    said = _how_it_ended(claims)
    if ending.killed is not None:
        # What is killed was not seen to end, whatever it has said: it may have gone on writing.
        said += f", {_KILLED.format(in_words(ending.limit_s))}"
        return Outcome("no-result" if code == 0 else "failed", said, code)
    if not claims.clean:
        said += ", but the machine ended before the image was unmounted"
    if code == 0:
        return Outcome("success" if claims.clean else "no-result", said, code)
    return Outcome("failed", said, code)


def _how_it_ended(claims: Claims) -> str:
    """How run.sh ended, and what may have caused that."""
    code = claims.exit_code or 0
    if claims.powered_off and code:
        said = "run.sh was ended by poweroff, which kills it; let it end by itself"
    elif claims.signal and code:
        said = f"run.sh was killed by {_signal_name(claims.signal)}"
    elif _SIGNALLED < code <= _SIGNALLED + _MOST_SIGNALS:
        said = f"run.sh ended with exit status {code}: a program in it was killed by {_signal_name(code - _SIGNALLED)}"
    else:
        said = f"run.sh ended with exit status {code}"
        if code == _NOT_FOUND:
            said += "; a program may be missing: name its Debian package among the packages in construir.toml"
    if claims.starved is not None and code:
        said += f"; the machine ran out of memory and killed {one_line(claims.starved)}: ask for more by `memory`"
    return said


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
