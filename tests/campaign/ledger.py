"""What contributors were told of each upload; kept outside of the appliance, and never lost with it."""

import threading
from collections import Counter
from pathlib import Path
from typing import Literal

import msgspec

# "unknown": the connection broke before the verdict. Such a job may run, but once only.
Outcome = Literal["accepted", "refused", "unknown", "cut", "not sent"]


class Entry(msgspec.Struct, kw_only=True):
    """An upload. `id` is the job's, where a reply named one; `cancelled` is whether its end was asked for.

    `code` is that of the reply which refused it.
    """

    token: str
    contributor: str
    habit: str
    kind: str
    sound: bool = True
    outcome: Outcome = "not sent"
    id: str = ""
    cancelled: bool = False
    code: str = ""
    told: str = ""


class Ledger:
    """All of them. Any thread may write; a line is in the file before the next upload begins."""

    def __init__(self, path: Path) -> None:
        self.entries: list[Entry] = []
        self._file = path.open("ab", buffering=0)
        self._lock = threading.Lock()

    def note(self, entry: Entry) -> None:
        """Add what became of an upload."""
        with self._lock:
            self.entries.append(entry)
            self._file.write(msgspec.json.encode(entry) + b"\n")

    def outcomes(self) -> Counter[str]:
        """How many there are of each outcome."""
        return Counter(entry.outcome for entry in self.entries)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
