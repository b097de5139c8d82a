"""A tar stream of unknown origin -> a squashfs image, in a jail (mksquashfs(1)).

Not by sqfstar(1), which is the same program: that of Debian 12 takes no level of compression.
"""

import io
import os
import shlex
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from construir_ftp.jail import cell, tools

_TIMEOUT_S = 3600.0
_MEMORY_BYTES = 512 * 2**20
# Of build-essential and debhelper, 360 MiB: 3.9 s of processor time and 114 MiB; by the default, 15, 52 s and 105 MiB.
_LEVEL = ("-Xcompression-level", "6")


def squash(tar: Iterator[bytes], target: Path, most_bytes: int, newest_s: int | None = None) -> None:
    """Make `target`, which is as long as `most_bytes` at most. Raises CommandError.

    With `newest_s`, in seconds since the Epoch, equal streams make equal images: no time in it is later, and all of it
    belongs to root. Without that the root directory has the present time, and the jail's uid.
    """
    target.touch()
    its_cell = cell.writer(target, memory_bytes=_MEMORY_BYTES, cpu_s=_TIMEOUT_S, most_bytes=most_bytes)
    options = ["-tar", "-noappend", "-quiet", "-no-progress", "-mem", "256M", "-comp", "zstd", *_LEVEL]
    # Its own default for the root directory is writable by everyone.
    options += ["-root-mode", "755"]
    # 4.5.1 takes -root-time, -root-uid and -root-gid, and does nothing with them.
    now, owner = ([], []) if newest_s is None else (["env", f"SOURCE_DATE_EPOCH={newest_s}"], ["-all-root"])
    argv: list[str | Path] = [*now, "mksquashfs", "-", target, *options, *owner]
    with tools.start(its_cell, argv, _TIMEOUT_S, stdin=subprocess.PIPE) as tool:
        with suppress(BrokenPipeError):  # it says why below
            for block in tar:
                tool.stdin.write(block)
            tool.stdin.close()
        tool.end().check()
    os.chown(target, os.geteuid(), os.getegid())


# -- exported variables ------------------------------------------------------------------------------------------

# A layer of one file, by which whoever logs in to a machine has the job's variables.
# login(1) forgets the environment it is started in; a login shell reads /etc/profile.d.

# Read after the one that puts /job/bin into PATH, since the job's own PATH is the whole of it.
_SCRIPT = "etc/profile.d/zz-job.sh"
# What the visitor's terminal is, and the prompt that a script waits for, are not the job's to say.
_NOT_THE_JOBS = ("TERM", "LINES", "COLUMNS", "PS1")
# Many times as long as all variables can be (wishes).
_MOST_BYTES = 2**20


def squashed(env: dict[str, str], target: Path) -> Path:
    """Make `target`, that layer. Raises CommandError."""
    squash(_tar(_script(env)), target, _MOST_BYTES, newest_s=0)
    return target


def _script(env: dict[str, str]) -> bytes:
    chosen = {name: value for name, value in env.items() if name not in _NOT_THE_JOBS}
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in chosen.items()).encode()


def _tar(script: bytes) -> Iterator[bytes]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for parent in reversed(Path(_SCRIPT).parents[:-1]):
            directory = tarfile.TarInfo(str(parent))
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(directory)
        file = tarfile.TarInfo(_SCRIPT)
        file.size = len(script)
        archive.addfile(file, io.BytesIO(script))
    yield buffer.getvalue()
