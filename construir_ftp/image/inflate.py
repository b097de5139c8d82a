"""What decompressors make of a part of an image, such as a driver or a kernel: in a jail, and within bounds."""

import subprocess
import tempfile
from typing import IO, cast

from construir_ftp import jail, process
from construir_ftp.errors import ConstruirError
from construir_ftp.jail import cell

_CPU_S = 120
_MEMORY_BYTES = 256 * 2**20
_MOST_BYTES = 256 * 2**20


def inflate(tool: str, data: bytes) -> bytes:
    """`data` unpacked by gzip, xz, zstd, ... Raises ConstruirError where it can't be, or is too much."""
    if not process.find(tool):
        raise ConstruirError(f"{tool}: not installed; a part of the image is packed by it")
    walls = cell.reader(memory_bytes=_MEMORY_BYTES, cpu_s=_CPU_S)
    with tempfile.TemporaryFile() as packed:
        packed.write(data)
        packed.seek(0)
        with jail.spawn(walls, [tool, "-dc"], stdin=packed, stdout=subprocess.PIPE) as child:
            said = cast(IO[bytes], child.stdout).read(_MOST_BYTES + 1)
            failed = len(said) > _MOST_BYTES or child.wait() != 0
    if failed:
        raise ConstruirError(f"a part of the image can't be unpacked by {tool}")
    return said
