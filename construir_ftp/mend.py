"""e2fsprogs at work on an ext image, in a jail: the only programs that write to a file system that came from a job.

What they need is the image, and nothing else; exit status from e2fsck(8): 1 and 2 say that errors were corrected.
"""

import subprocess
from pathlib import Path

from construir_ftp import extfs, jail
from construir_ftp.errors import ConstruirError
from construir_ftp.jail import cell

_TIMEOUT_S = 2 * 3600
_MEMORY_BYTES = 2**30


def repair(image: Path) -> None:
    """Let e2fsck replay the journal, or mend what a machine left that was switched off. Raises ConstruirError."""
    with image.open("rb") as file:
        if not extfs.Image(file).ext.needs_repair:
            return
    status = _run(image, "e2fsck", "-f", "-y")
    if status & ~3:
        raise ConstruirError(f"the image's file system is beyond repair (exit status {status} from e2fsck)")


def _run(image: Path, *argv: str) -> int:
    image = image.resolve()  # a jail has another working directory
    walls = cell.reader(memory_bytes=_MEMORY_BYTES, cpu_s=_TIMEOUT_S, writable=image)
    with jail.spawn(walls, [*argv, image]) as tool:
        try:
            return tool.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired as late:
            raise ConstruirError(f"the image's file system: {argv[0]} was not done in time") from late
