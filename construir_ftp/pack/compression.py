"""An image of our own into an outer format, by libraries, in this process: it needs no program, on any system.

The same image at the same level makes the same bytes, on any number of processors, as long as the libraries are the
same. What came from a job is packed by `codec`, in a jail.
"""

import bz2
import lzma
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import lz4.frame

from construir_ftp.errors import UsageError
from construir_ftp.formats import FORMATS

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_PIECE_BYTES = 2**20
_MOST_WORKERS = 8


class _Encoder(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def check_level(codec: str, level: int | None) -> None:
    """Raise UsageError if the codec has no such level."""
    if level is None:
        return
    levels = FORMATS[codec].levels
    if levels is None:
        raise UsageError(f"--level: {codec} has no levels")
    lowest, highest, _ = levels
    if not lowest <= level <= highest:
        raise UsageError(f"--level: {codec} has levels from {lowest} to {highest}, not {level}")


def compress(codec: str, image: Path, target: Path, level: int | None, tell: Callable[[int], None]) -> None:
    """Create `target`, `image` in the given format; `tell` hears how many bytes more are done. Raises OSError.

    Raw is not made here: the image is it.
    """
    levels = FORMATS[codec].levels
    assert levels is not None, "raw is not compressed"
    chosen = levels[2] if level is None else level
    size_bytes = image.stat().st_size
    with image.open("rb") as source, target.open("xb") as packed:
        if codec == "lz4":
            encoder, begin = _lz4(chosen, size_bytes)
            packed.write(begin)
        else:
            encoder = _encoder(codec, chosen, size_bytes)
        while piece := source.read(_PIECE_BYTES):
            packed.write(encoder.compress(piece))
            tell(len(piece))
        packed.write(encoder.flush())


def _encoder(codec: str, level: int, size_bytes: int) -> _Encoder:
    if codec == "gzip":
        return zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)  # no name, no time
    if codec == "bzip2":
        return bz2.BZ2Compressor(level)
    if codec == "xz":
        return lzma.LZMACompressor(lzma.FORMAT_XZ, preset=level)
    known = zstd.CompressionParameter
    # One worker makes the same as many, but not the same as none (zstd.h, ZSTD_c_nbWorkers).
    workers = min(_MOST_WORKERS, os.cpu_count() or 1)
    encoder: zstd.ZstdCompressor = zstd.ZstdCompressor(
        options={known.compression_level: level, known.checksum_flag: 1, known.nb_workers: workers}
    )
    encoder.set_pledged_input_size(size_bytes)
    return encoder


def _lz4(level: int, size_bytes: int) -> tuple[_Encoder, bytes]:
    encoder = lz4.frame.LZ4FrameCompressor(compression_level=level, content_checksum=True)
    return encoder, encoder.begin(size_bytes)
