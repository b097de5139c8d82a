"""Which form the spool has: a number in its file `format`, so that an older program leaves a newer spool alone.

The number grows when a program of before could no longer work on what is there. A spool without the file is of the
first form.
"""

import os
from contextlib import suppress
from pathlib import Path

from construir_ftp import files
from construir_ftp.errors import ConstruirError

FILE = "format"
CURRENT = 1


def check(spool: Path) -> None:
    """Raises ConstruirError where the spool is of a form that this program doesn't know."""
    found = _read(spool)
    if found > CURRENT:
        raise ConstruirError(
            f"spool {spool} is of format {found}, which a newer Construir has made; this one knows {CURRENT} at most:"
            ' install the newer one again, or see "Upgrade" in docs/operator.md'
        )


def note(spool: Path) -> None:
    """Write down that the spool is of the form that this program makes; where nothing is written, and by who may.

    Without room for it a later start writes it: it is the first form, and says the same without the file.
    """
    if not (spool / FILE).exists() and os.access(spool, os.W_OK):
        with suppress(OSError):
            files.replace_durably(spool / FILE, f"{CURRENT}\n".encode())


def _read(spool: Path) -> int:
    path = spool / FILE
    try:
        text = files.read_anew(path).decode("ascii").strip()
    except (FileNotFoundError, NotADirectoryError):  # whoever makes the spool, or finds it, says so
        return 1
    except (OSError, UnicodeDecodeError) as error:
        raise ConstruirError(f"{path} can't be read: {error}") from error
    if not (text.isdecimal() and len(text) < 10):
        raise ConstruirError(f"{path}: expected a number such as {CURRENT}, got {text[:40]!a}")
    return int(text)
