"""A tar stream of unknown origin -> a squashfs image, in a jail (sqfstar(1)); equal streams make equal images."""

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


def squash(tar: Iterator[bytes], target: Path, most_bytes: int) -> None:
    """Make `target`, which is as long as `most_bytes` at most. Raises CommandError."""
    target.touch()
    walls = cell.writer(target, memory_bytes=_MEMORY_BYTES, cpu_s=_TIMEOUT_S, most_bytes=most_bytes)
    options = ["-force", "-quiet", "-no-progress", "-comp", "zstd", "-mem", "256M"]
    # Its own defaults for the root directory are the present, and writable by everyone.
    options += ["-mkfs-time", "0", "-root-time", "0", "-root-mode", "755"]
    argv: list[str | Path] = ["sqfstar", *options, target]
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
