"""What was asked of Slurm, and became of it: pilots.json, which is on stable storage before anything is asked.

So a keeper that is killed at any line knows afterwards which pilots there may be, and starts none twice. Only one
process may have it.
"""

import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import msgspec

from construir_ftp.jobs import pilots
from construir_ftp.jobs.pilots import Pilot, Pilots

_NAME = re.compile(r"pilot-[0-9a-f]{8}")


def is_pilot(name: str) -> bool:
    """Whether a node of this name is one."""
    return bool(_NAME.fullmatch(name))


class Ledger:
    """Of one spool."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._kept = pilots.read(spool)
        self._pilots = {pilot.name: pilot for pilot in self._kept.pilots}
        self.mark = self._kept.mark or secrets.token_hex(4)
        self._trouble = self._detail = ""

    def __iter__(self) -> Iterator[Pilot]:
        return iter(list(self._pilots.values()))

    def __len__(self) -> int:
        return len(self._pilots)

    def __contains__(self, name: str) -> bool:
        return name in self._pilots

    def is_unsure(self) -> bool:
        """Whether there is one of which nobody knows whether Slurm has it."""
        return any(not pilot.job for pilot in self)

    def begin(self) -> Pilot:
        """One under a new name, on stable storage, which Slurm may be asked for."""
        pilot = Pilot(name=f"pilot-{secrets.token_hex(4)}")
        self.note(pilot)
        self.save()
        return pilot

    def note(self, pilot: Pilot) -> None:
        """Have a pilot in it as it is."""
        self._pilots[pilot.name] = pilot

    def forget(self, name: str) -> None:
        """Have a pilot out of it: it has ended, or never was."""
        del self._pilots[name]

    def tell(self, trouble: str, detail: str) -> None:
        """What keeps pilots from being started, for anyone, and for the operator; empty if nothing does."""
        self._trouble, self._detail = trouble, detail

    def save(self) -> None:
        """Write pilots.json, if there is anything new. Raises OSError."""
        kept = Pilots(mark=self.mark, pilots=tuple(self._pilots.values()), trouble=self._trouble, detail=self._detail)
        if msgspec.structs.asdict(kept) != msgspec.structs.asdict(self._kept):
            pilots.write(self._spool, kept)
            self._kept = kept
