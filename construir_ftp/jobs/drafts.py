"""Files of the spool that get their names by a rename (files.replace, cancellation), which takes seconds: what has
been left of them by a process that was killed meanwhile.
"""

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_DRAFT = re.compile(
    r"\.(cancel|format|(runner|service|tally|news|nodes|offer|pilots)\.json|part-[a-z]+|turns|alive|drained)"
    r"\.[0-9a-f]{8,}"
)
_OLD_S = 3600.0


def abandoned(spool: Path) -> Iterator[Path]:
    """Those that nobody is writing any more."""
    oldest_s = time.time() - _OLD_S
    for directory in (spool, *spool.glob("nodes/*/")):
        for entry in directory.glob(".*"):
            with suppress(FileNotFoundError):  # renamed meanwhile
                if _DRAFT.fullmatch(entry.name) and entry.lstat().st_mtime < oldest_s:
                    yield entry
