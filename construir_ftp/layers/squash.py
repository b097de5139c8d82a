"""A tar stream of unknown origin -> a squashfs image, in a jail (sqfstar(1))."""

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from construir_ftp import jail
from construir_ftp.errors import CommandError
from construir_ftp.jail import cell

_TIMEOUT_S = 3600.0
_MEMORY_BYTES = 512 * 2**20


def squash(tar: Iterator[bytes], target: Path, most_bytes: int, newest_s: int | None = None) -> None:
    """Make `target`, which is as long as `most_bytes` at most. Raises CommandError.

    With `newest_s`, in seconds since the Epoch, equal streams make equal images: no time in it is later, and all of it
    belongs to root. Without that the root directory has the present time, and the jail's uid.
    """
    target.touch()
    walls = cell.writer(target, memory_bytes=_MEMORY_BYTES, cpu_s=_TIMEOUT_S, most_bytes=most_bytes)
    options = ["-force", "-quiet", "-no-progress", "-comp", "zstd", "-mem", "256M"]
    # Its own default for the root directory is writable by everyone.
    options += ["-root-mode", "755"]
    # 4.5.1 takes -root-time, -root-uid and -root-gid, and does nothing with them.
    now, owner = ([], []) if newest_s is None else (["env", f"SOURCE_DATE_EPOCH={newest_s}"], ["-all-root"])
    argv: list[str | Path] = [*now, "sqfstar", *options, *owner, target]
    with jail.spawn(walls, argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as tool:
        into = cast(IO[bytes], tool.stdin)
        try:
            for block in tar:
                into.write(block)
            into.close()
        except BrokenPipeError:
            pass  # it says why below
        said = cast(IO[bytes], tool.stderr).read()
        if status := tool.wait():
            raise CommandError(f"exit status {status} from: {shlex.join(map(str, argv))} ({said[-200:].decode()!a})")
    os.chown(target, os.geteuid(), os.getegid())
