"""What differs between two files, as diffoscope says it, where that is installed. It reads files of strangers."""

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from construir_ftp import process
from construir_ftp.errors import CommandError

_PATIENCE_S = 600.0
_MOST_LINES = 200


def lines(old: Path, new: Path) -> list[str]:
    """Its report, cut if it is long; nothing where it is not installed, or a file is not there."""
    if shutil.which("diffoscope") is None or not (old.is_file() and new.is_file()):
        return []
    with tempfile.TemporaryDirectory(prefix="construir-") as place:
        report = Path(place) / "report"
        with suppress(CommandError):  # it ends with 1 where anything differs
            process.capture(["diffoscope", "--text", report, old, new], timeout_s=_PATIENCE_S)
        return report.read_text(errors="replace").splitlines()[:_MOST_LINES] if report.exists() else []
