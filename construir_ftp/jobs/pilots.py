"""pilots.json, in the spool: the nodes that Slurm was asked for, each of which is written down before that.

The part "pilots" writes it (see slurm). All of it may be told to anyone but `detail`, which has the words of Slurm and
of programs, and may name paths.
"""

from collections import Counter
from pathlib import Path
from typing import Literal

import msgspec

from construir_ftp import files, schema
from construir_ftp.errors import one_line
from construir_ftp.jobs import modes

FILE = "pilots.json"


class Pilot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node that Slurm was asked for. `job` is its number there, 0 as long as nobody knows whether Slurm has it;
    `reason` is Slurm's word for why it waits. One that starts has not said yet that it is a node.
    """

    name: str
    job: int = 0
    state: Literal["asked", "waiting", "starting", "running"] = "asked"
    reason: str = ""


class Pilots(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """pilots.json. `mark` is in the names that Slurm knows them by, so that they are told from others'; `trouble` is
    what keeps more of them from being started, empty if nothing does, and `detail` the same for the operator.
    """

    version: int = 1
    mark: str = ""
    pilots: tuple[Pilot, ...] = ()
    trouble: str = ""
    detail: str = ""


def read(spool: Path) -> Pilots:
    """Those of the appliance with that spool; none where no Slurm is used."""
    try:
        return schema.from_json(files.read_anew(spool / FILE), Pilots)
    except (OSError, msgspec.MsgspecError):
        return Pilots()


def write(spool: Path, pilots: Pilots) -> None:
    """Replace pilots.json; on return it survives a power cut."""
    files.replace_durably(spool / FILE, msgspec.json.encode(pilots), modes.EVERYONES)


def in_words(pilots: Pilots) -> str:
    """How pilots are, in one line for anyone; empty where there is nothing to tell."""
    reasons = Counter(one_line(pilot.reason) for pilot in pilots.pilots if pilot.state == "waiting")
    waiting = [
        f"{_counted(count, 'wait')} in Slurm{f' ({reason})' if reason else ''}" for reason, count in reasons.items()
    ]
    return ", ".join(filter(None, [pilots.trouble, *waiting, _doing(pilots, "start"), _doing(pilots, "run")]))


def _doing(pilots: Pilots, verb: str) -> str:
    count = sum(pilot.state.startswith(verb) for pilot in pilots.pilots)
    return _counted(count, verb) if count else ""


def _counted(count: int, verb: str) -> str:
    return f"1 pilot {verb}s" if count == 1 else f"{count} pilots {verb}"
