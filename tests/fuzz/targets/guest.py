"""A guest that says anything on its control port and its console, and what is made of that in its result."""

from construir_ftp.jobs import result
from construir_ftp.jobs.result import Claims, Result
from construir_ftp.machine import guest, outcome
from construir_ftp.machine.deadlines import Killed
from construir_ftp.machine.ending import Ending
from tests.fuzz.targets import alone, demand_line

_SEPARATOR = b"\n---\n"
_ENDS: tuple[Killed | None, ...] = (
    None,
    "boot-timeout",
    "mount-timeout",
    "timeout",
    "idle-timeout",
    "power-off-timeout",
    "stopped",
)


def attempt(data: bytes) -> None:
    """The first byte says how the machine ended, and how what it says is cut; after the separator is the console."""
    first, (said, _, console) = (data or b"\0")[0], data[1:].partition(_SEPARATOR)
    messages, claims, size = guest.Messages(), Claims(), 1 + first // 16 * 100
    for at in range(0, len(said), size):
        for line in messages.feed(said[at : at + size]):
            assert line.isascii()
            guest.take(claims, line)
    ending = Ending(claims=claims, booted=0.0, status=first % 2, chosen=first % 3 > 0, console_tail=console)
    ending.killed, ending.limit_s = _ENDS[first % len(_ENDS)], 60.0
    ended = outcome.judge(ending)
    demand_line(ended.reason)
    status = ended.status if isinstance(ended, outcome.Outcome) else "lost"
    told = Result(status=status, reason=ended.reason, claimed=claims)
    assert result.decode(result.encode(told)) == told


target = alone(attempt)
