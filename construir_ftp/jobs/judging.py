"""judging.json, in the spool: why no upload can be checked at the moment, as the FTP server has found.

It is there only while that is so. The FTP server writes it, and removes it when it begins. Nothing depends on it but
what people are told: whoever uploads is answered by the check itself.
"""

from contextlib import suppress
from pathlib import Path

import msgspec

from construir_ftp import files, schema

FILE = "judging.json"
# What anyone may be told.
NO_JUDGE = "the appliance can't check any at the moment, by a fault of its own"
REMEDY = "What the jail lacks is said by: construir check"


class Judging(msgspec.Struct, frozen=True):
    """judging.json. `detail` is in words for the operator, and may name paths; empty where uploads can be checked."""

    detail: str = ""


def read(spool: Path) -> Judging:
    """What the FTP server of that spool has found last."""
    with suppress(OSError, msgspec.MsgspecError):
        return schema.from_json(files.read_anew(spool / FILE), Judging)
    return Judging()


def tell(spool: Path, detail: str) -> None:
    """Replace the file; what a full disk costs is that people are told old news."""
    with suppress(OSError):
        if not detail:
            (spool / FILE).unlink(missing_ok=True)
        elif read(spool).detail != detail:
            files.replace(spool / FILE, msgspec.json.encode(Judging(detail)))
