"""What pilots write, each into a file of its own in the spool: pilots/NAME.log.

That of a pilot which has done its work is removed. Of those that could not start, the last ones are kept.
"""

from collections.abc import Container
from pathlib import Path

from construir_ftp.errors import one_line

_KEPT = 10
_READ_BYTES = 4096
_QUOTED_CHARACTERS = 300


class Logs:
    """Of one spool."""

    def __init__(self, spool: Path) -> None:
        self._directory = spool / "pilots"

    def place(self, name: str) -> Path:
        """Where a pilot is to write, in a directory that is there."""
        self._directory.mkdir(mode=0o755, exist_ok=True)
        return self._directory / f"{name}.log"

    def remove(self, name: str) -> None:
        """Remove what a pilot has written."""
        self._path(name).unlink(missing_ok=True)

    def last_words(self, name: str) -> str:
        """The last line that a pilot has written, and where; in words, if it has written none."""
        try:
            with self._path(name).open("rb") as file:
                file.seek(max(0, self._path(name).stat().st_size - _READ_BYTES))
                lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        except OSError:
            lines = []
        return (
            f"{one_line(lines[-1].strip())[:_QUOTED_CHARACTERS]} ({self._path(name)})" if lines else "it said nothing"
        )

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def prune(self, living: Container[str]) -> None:
        """Remove all but the last ones, and those of pilots that live."""
        ended = [path for path in self._directory.glob("*.log") if path.stem not in living]
        for path in sorted(ended, key=lambda path: path.stat().st_mtime)[:-_KEPT]:
            path.unlink(missing_ok=True)
