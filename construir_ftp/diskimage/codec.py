"""An image into an outer format and back, by the system's tools.

For images that have passed their check, and for images of our own: a tool is no judge of a stream. Each reads
standard input and writes standard output; files are written here, so that holes stay holes and a full disk is
an OSError with errno ENOSPC, whatever the tool would have called it.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from construir_ftp import files, formats, process
from construir_ftp.diskimage import superblock
from construir_ftp.errors import ConstruirError
from construir_ftp.jail import cell, tools

_COPY_BYTES = 1024 * 1024
_ZEROS = bytes(_COPY_BYTES)
# xz is allowed formats.MEMORY_BYTES to unpack; packing with all cores takes it more, which reader adds for each.
_TOOL_BYTES = 2 * formats.MEMORY_BYTES


def patience_s(image_bytes: int) -> float:
    """How long a tool may take for an image of that size: an hour, and a second for each MiB. Only one that hangs, or
    that meets what it is slowest at, takes longer.
    """
    return 3600.0 + image_bytes / 2**20


def unpack(
    codec_name: str, source: Path, target: Path, image_bytes: int, timeout_s: float, *, padding_bytes: int = 0
) -> None:
    """Create `target`, an image of exactly `image_bytes`, from `source`; zeros become holes.

    Less than a block may follow the file system in the stream, or zeros, and is left out. So are `padding_bytes` zeros
    after the stream, which not every tool takes. Raises ConstruirError if there is
    less or more than that, if the tool fails, or if it is not done after `timeout_s` seconds; OSError if `target` can't
    be written, with errno ENOSPC if the disk is full. Nothing is left of `target` then.
    """
    try:
        argv = _without_padding(formats.find(codec_name).unpack_argv, source, padding_bytes)
        with _new(target), _reading(argv, source, timeout_s) as unpacked:
            files.write_sparse(unpacked, target, image_bytes)
            if not _is_little_or_zeros(unpacked):
                raise ConstruirError(f"{source.name} holds more than its {image_bytes} bytes; fetch or send it again")
    except EOFError as short:
        raise ConstruirError(
            f"{source.name} holds less than its {image_bytes} bytes; fetch or send it again"
        ) from short


def _without_padding(argv: tuple[str, ...], source: Path, padding_bytes: int) -> tuple[str, ...]:
    """The same tool, which sees no more than what comes before the padding. Its exit status is the line's (sh(1))."""
    if not argv or not padding_bytes:
        return argv
    return ("sh", "-c", 'head -c "$0" | "$@"', str(source.stat().st_size - padding_bytes), *argv)


def _is_little_or_zeros(rest: IO[bytes]) -> bool:
    """Whether this is less than a block, or nothing but zeros, however long. Raises nothing; reads until it knows."""
    size_bytes, is_zeros = 0, True
    while (is_zeros or size_bytes < superblock.MAX_BLOCK_BYTES) and (piece := rest.read(_COPY_BYTES)):
        size_bytes += len(piece)
        is_zeros = is_zeros and piece == _ZEROS[: len(piece)]
    return is_zeros or size_bytes < superblock.MAX_BLOCK_BYTES


def pack(codec_name: str, image: Path, target: Path, timeout_s: float) -> None:
    """Create `target`, `image` in the given format.

    Raises CommandError if the tool fails or is not done after `timeout_s` seconds; OSError if `target` can't be
    written, with errno ENOSPC if the disk is full. Nothing is left of `target` then. Nothing is fsynced.
    """
    with _new(target), _reading(formats.find(codec_name).pack_argv, image, timeout_s) as packed:
        if codec_name == "raw":
            files.write_sparse(packed, target, image.stat().st_size)
            return
        with target.open("xb") as file:
            shutil.copyfileobj(packed, file, _COPY_BYTES)


@contextmanager
def _new(target: Path) -> Iterator[None]:
    """Leave no half-written `target`, and no other program's file either."""
    try:
        yield
    except FileExistsError:
        raise
    except BaseException:
        target.unlink(missing_ok=True)
        raise


@contextmanager
def _reading(argv: tuple[str, ...], source: Path, timeout_s: float) -> Iterator[IO[bytes]]:
    """What `argv` (or nobody, for raw) makes of `source`; a block that reads to the end also learns if that was all."""
    with source.open("rb") as file:
        if not argv:
            yield file
            return
        walls = cell.reader(memory_bytes=_TOOL_BYTES, cpu_s=timeout_s)
        with tools.start(walls, argv, timeout_s, stdin=file) as tool:
            try:
                yield tool.stdout
            except EOFError:
                tool.end().check()
                raise
            tool.end().check()


# -- parts of an image -------------------------------------------------------------------------------------------

# What decompressors make of a part of an image, such as a driver or a kernel: in a jail, and within bounds.

_INFLATE_S = 120
_MEMORY_BYTES = 256 * 2**20
_MOST_BYTES = 256 * 2**20


def inflate(tool: str, data: bytes) -> bytes:
    """`data` unpacked by gzip, xz, zstd, ... Raises ConstruirError where it can't be, or is too much."""
    if not process.find(tool):
        raise ConstruirError(f"{tool}: not installed; a part of the image is packed by it")
    walls = cell.reader(memory_bytes=_MEMORY_BYTES, cpu_s=_INFLATE_S)
    with tempfile.TemporaryFile() as packed:
        packed.write(data)
        packed.seek(0)
        ended = tools.run(walls, [tool, "-dc"], _INFLATE_S, stdin=packed, most_bytes=_MOST_BYTES + 1)
    if ended.status or len(ended.output) > _MOST_BYTES:
        raise ConstruirError(f"a part of the image can't be unpacked by {tool}")
    return ended.output
