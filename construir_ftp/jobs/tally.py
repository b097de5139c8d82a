"""What the FTP server counts of uploads since it began: for monitors alone, and nothing depends on it.

<spool>/tally.json   replaced in one step, every few seconds at most
"""

from bisect import bisect_left
from contextlib import suppress
from pathlib import Path

import msgspec

from construir_ftp import files, schema
from construir_ftp.jobs.reply import Reply

FILE = "tally.json"
# Upper bounds; what took longer is counted last.
CHECK_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
# Few, since each is a series of its own: the reply's code, in a word.
REASONS = {
    426: "cut",
    450: "busy",
    451: "our-fault",
    452: "no-room",
    550: "no-job",
    552: "too-large",
    553: "name",
    554: "nothing-to-continue",
}
OTHER = "other"


class Tally(msgspec.Struct, kw_only=True):
    """`refused` by reason; `checks` counts those that took up to each of CHECK_BUCKETS_S, and longer."""

    accepted: int = 0
    refused: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys((*REASONS.values(), OTHER), 0))
    checks: list[int] = msgspec.field(default_factory=lambda: [0] * (len(CHECK_BUCKETS_S) + 1))
    check_seconds: float = 0.0

    def note_refusal(self, reply: Reply) -> None:
        """An upload was refused with that reply."""
        self.refused[REASONS.get(reply.code, OTHER)] += 1

    def note_end(self, reply: Reply, took_s: float, *, is_job: bool) -> None:
        """An upload came to its end, and its reply `took_s` after its last byte."""
        if is_job:
            self.accepted += 1
        elif not reply.is_success:
            self.note_refusal(reply)
        if is_job or reply.code == 550:
            self.checks[bisect_left(CHECK_BUCKETS_S, took_s)] += 1
            self.check_seconds += took_s

    def tell(self, spool: Path) -> None:
        """Replace the file; what a full disk costs is that monitors are told old news."""
        content = msgspec.json.encode(self)
        with suppress(OSError):
            if not (spool / FILE).exists() or (spool / FILE).read_bytes() != content:
                files.replace(spool / FILE, content)


def read(spool: Path) -> Tally:
    """What was told last; nothing, if nothing was."""
    with suppress(OSError, msgspec.MsgspecError):
        tally = schema.from_json(files.read_anew(spool / FILE), Tally)
        if len(tally.checks) == len(CHECK_BUCKETS_S) + 1:
            return tally
    return Tally()
