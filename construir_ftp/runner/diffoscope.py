"""What differs between two files, as diffoscope says it, where that is installed.

It reads files of strangers by many programs, all of them in one jail: they see these two files, reach no network, write
into the jail's own memory alone, and have bounds of time, memory and words.
"""

import os
import shutil
import stat
from pathlib import Path

import msgspec

from construir_ftp.errors import ConstruirError
from construir_ftp.jail import cell, tools
from construir_ftp.jail.cell import Cell

PACKAGE = "diffoscope-minimal"
_PATIENCE_S = 600.0
_MOST_LINES, _MOST_BYTES, _MOST_CHARACTERS = 100, 64 * 1024, 200
# Of each process, and of what is unpacked for all of them.
_ADDRESS_BYTES, _UNPACKED_BYTES = 2 * 2**30, 2**30
_OPEN_FILES = 256
# Of the time there is, and of archives in archives: what is deeper is compared as it is.
_UNPACKING, _DEEPEST = 0.5, 10
_HEAD_BYTES = 256


def is_installed() -> bool:
    """Whether it is, for this user."""
    return shutil.which("diffoscope") is not None


def lines(old: Path, new: Path, *, patience_s: float = _PATIENCE_S) -> list[str]:
    """Its report, or why there is none; that it goes on is its last line. Empty where it is not installed, or where it
    sees no difference, or a file is not there. Ends after `patience_s` seconds.
    """
    program = shutil.which("diffoscope")
    if program is None or not (_is_plain(old) and _is_plain(new)):
        return []
    old, new = old.absolute(), new.absolute()
    for path in (old, new):
        if os.geteuid() == 0 and not path.stat().st_mode & stat.S_IROTH:
            return [_unsaid(f"its jail is another user's, who can't read {path.name}; run: chmod o+r {path}")]
    options = ["--text", "-", "--no-progress", f"--max-text-report-size={_MOST_BYTES}"]
    options += ["--exclude-directory-metadata=yes", f"--timeout={max(1, int(patience_s * _UNPACKING))}"]
    argv: list[str | Path] = [program, *options, f"--max-container-depth={_DEEPEST}", old, new]
    try:
        ended = tools.run(_cell(program, old, new, patience_s), argv, patience_s, most_bytes=2 * _MOST_BYTES)
        if not ended.output:
            ended.check()
    except (ConstruirError, OSError) as error:
        return [_unsaid(str(error))]
    # It ends with 1 where anything differs.
    return _cut(ended.output.decode(errors="replace").splitlines())


def _unsaid(why: str) -> str:
    return f"diffoscope does not say what: {why}"


def _cell(program: str, old: Path, new: Path, cpu_s: float) -> Cell:
    """The two files, the program, and room for what it unpacks."""
    walls = cell.reader(memory_bytes=_ADDRESS_BYTES, cpu_s=cpu_s, readable=(old, new, *_parts(Path(program))))
    assert walls.limits.memory_bytes is not None
    memory_bytes = walls.limits.memory_bytes + _UNPACKED_BYTES
    bounds = {"file_bytes": _UNPACKED_BYTES, "open_files": _OPEN_FILES, "memory_bytes": memory_bytes}
    limits = msgspec.structs.replace(walls.limits, **bounds)
    return msgspec.structs.replace(walls, limits=limits, scratch_bytes=_UNPACKED_BYTES, proc=True)


def _parts(program: Path) -> tuple[Path, ...]:
    """What there is to be seen of a program that is not in /usr: it may be a script, of a Python of its own."""
    with program.open("rb") as file:
        head = file.read(_HEAD_BYTES).partition(b"\n")[0]
    interpreter = [Path(os.fsdecode(head[2:].split()[0]))] if head.startswith(b"#!/") else []
    paths = [each for path in (program, *interpreter) for each in (path, path.resolve())]
    return tuple(dict.fromkeys(place for path in paths for place in cell.program(str(path))))


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _cut(told: list[str]) -> list[str]:
    shown = [line[:_MOST_CHARACTERS] for line in told[:_MOST_LINES]]
    return [*shown, "... and more: see diffoscope"] if len(told) > _MOST_LINES else shown
