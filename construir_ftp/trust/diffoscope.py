"""What differs between two files, as diffoscope says it, where that is installed.

It reads files of strangers, by many programs and outside of any jail. So it has bounds: of time, of memory, of what it
unpacks and of what it says.
"""

import shutil
import tempfile
from pathlib import Path

from construir_ftp import process
from construir_ftp.errors import CommandError

PACKAGE = "diffoscope-minimal"
_PATIENCE_S = 600.0
_MOST_LINES, _MOST_BYTES, _MOST_CHARACTERS = 100, 64 * 1024, 200
# prlimit(1), of each process.
_LIMITS = ("--as=4294967296", "--fsize=1073741824")


def is_installed() -> bool:
    """Whether it is, for this user."""
    return shutil.which("diffoscope") is not None


def lines(old: Path, new: Path) -> list[str]:
    """Its report, or why there is none; that it goes on is its last line. Empty where it is not installed, or where it
    sees no difference, or a file is not there.
    """
    program = shutil.which("diffoscope")
    if program is None or not (_is_plain(old) and _is_plain(new)):
        return []
    with tempfile.TemporaryDirectory(prefix="construir-", dir="/var/tmp") as place:
        report, problem = Path(place) / "report", ""
        argv: list[str | Path] = ["prlimit", *_LIMITS, program, "--text", report, "--no-progress"]
        argv += [f"--max-text-report-size={_MOST_BYTES}", "--exclude-directory-metadata=yes", old, new]
        try:
            process.capture(argv, timeout_s=_PATIENCE_S, env={"TMPDIR": place, "LC_ALL": "C.UTF-8"})
        except CommandError as error:  # it ends with 1 where anything differs
            problem = str(error)
        told = report.read_text(errors="replace") if report.exists() else ""
    return _cut(told.splitlines()) or ([f"diffoscope does not say what: {problem}"] if problem else [])


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _cut(told: list[str]) -> list[str]:
    shown = [line[:_MOST_CHARACTERS] for line in told[:_MOST_LINES]]
    return [*shown, "... and more: see diffoscope"] if len(told) > _MOST_LINES else shown
