"""Job images, and files that would like to be taken for one, for all tests. Plain functions; sizes in bytes.

Images are made by the system's mkfs programs, and the last few kept as bytes; hostile ones are made from them by hand.
"""

import bz2
import functools
import io
import lzma
import random
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import lz4.frame

from construir_ftp import process

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# The last few of a kind are kept: all that a run of the tests asks for would be gigabytes.
_kept = functools.lru_cache(maxsize=8)

COMPRESSED = ("gzip", "bzip2", "xz", "zstd", "lz4")
CODECS = ("raw", *COMPRESSED)
KIB, MIB, TIB = 2**10, 2**20, 2**40

HELLO = b"#!/bin/sh\necho hello > greeting\necho hello\n"

# Offsets in an ext image, the superblock's 1024 included (ext4/super.rst).
_INODES, _BLOCKS, _FREE_BLOCKS, _FIRST_BLOCK = 1024, 1028, 1036, 1044
_LOG_BLOCK, _BLOCKS_PER_GROUP, _INODES_PER_GROUP, _MAGIC = 1048, 1056, 1064, 1080


def run(*argv: str | Path) -> str:
    """Run a program of the system, which must succeed; return what it printed."""
    words = [str(word) for word in argv]
    done = subprocess.run(words, env=process.environment(), capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr.decode()}"
    return done.stdout.decode(errors="replace")


def job_directory(path: Path, run_sh: bytes = HELLO) -> Path:
    """A new directory with an executable run.sh in it."""
    path.mkdir()
    (path / "run.sh").write_bytes(run_sh)
    (path / "run.sh").chmod(0o755)
    return path


def of_directory(source: Path, target: Path, size_bytes: int = 2 * MIB) -> Path:
    """Make `target`, a raw ext2 image of what is in a directory, whatever `construir pack` would say of it."""
    run("mke2fs", "-q", "-F", "-t", "ext2", "-d", source, target, f"{size_bytes // KIB}k")
    return target


@_kept
def image(filesystem: str = "ext2", size_bytes: int = 4 * MIB, *options: str) -> bytes:
    """An ext image with a run.sh in it; `options` are mke2fs's."""
    with tempfile.TemporaryDirectory() as directory:
        source = job_directory(Path(directory) / "job")
        path = Path(directory) / "image"
        run("mke2fs", "-q", "-F", "-t", filesystem, *options, "-d", source, path, f"{size_bytes // KIB}k")
        return path.read_bytes()


def field(data: bytes, offset: int, kind: str = "<I") -> int:
    """A number in an image."""
    number: int = struct.unpack_from(kind, data, offset)[0]
    return number


def with_fields(data: bytes, fields: dict[int, int], kind: str = "<I") -> bytes:
    """The same image with other numbers at these offsets."""
    changed = bytearray(data)
    for offset, number in fields.items():
        struct.pack_into(kind, changed, offset, number)
    return bytes(changed)


def claiming(data: bytes, size_bytes: int) -> bytes:
    """An image whose ext superblock, consistently, says that it has another size than it has."""
    blocks = size_bytes // (1024 << field(data, _LOG_BLOCK))
    groups = -(-(blocks - field(data, _FIRST_BLOCK)) // field(data, _BLOCKS_PER_GROUP))
    return with_fields(data, {_BLOCKS: blocks, _INODES: groups * field(data, _INODES_PER_GROUP), _FREE_BLOCKS: 0})


def only_magic(size_bytes: int = 4 * MIB) -> bytes:
    """Zeros that libmagic calls an ext2 file system."""
    return with_fields(bytes(size_bytes), {_MAGIC: 0xEF53}, "<H")


def noise(size_bytes: int) -> bytes:
    """Bytes of no pattern, the same in every run."""
    return random.Random(size_bytes).randbytes(size_bytes)


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Lz4:
    """lz4.frame with check sums, in the manner of the others."""

    def __init__(self) -> None:
        self._frame = lz4.frame.LZ4FrameCompressor(content_checksum=True)
        self._begun = self._frame.begin()

    def compress(self, data: bytes) -> bytes:
        begun, self._begun = self._begun, b""
        packed: bytes = begun + self._frame.compress(data)
        return packed

    def flush(self) -> bytes:
        packed: bytes = self._begun + self._frame.flush()
        return packed


def _compressor(codec: str) -> _Compressor:
    if codec == "gzip":
        return zlib.compressobj(6, zlib.DEFLATED, 31)
    if codec == "bzip2":
        return bz2.BZ2Compressor()
    if codec == "xz":
        return lzma.LZMACompressor(preset=1)
    if codec == "zstd":
        return zstd.ZstdCompressor(options={zstd.CompressionParameter.checksum_flag: 1})
    return _Lz4()


def _packed(codec: str, blocks: Iterable[bytes]) -> bytes:
    compressor = _compressor(codec)
    return b"".join([*map(compressor.compress, blocks), compressor.flush()])


@_kept
def pack(codec: str, data: bytes) -> bytes:
    """`data` as one stream of the given format, with check sums."""
    return data if codec == "raw" else _packed(codec, [data])


def greedy_xz(data: bytes) -> bytes:
    """`data` as an xz stream that asks for a dictionary of 1.5 GiB (37 stands for it: xz file format, 5.3.1)."""
    stream = bytearray(lzma.compress(data))
    header_bytes = (stream[12] + 1) * 4
    assert stream[14:16] == b"\x21\x01"
    stream[16] = 37
    struct.pack_into("<I", stream, 12 + header_bytes - 4, zlib.crc32(stream[12 : 12 + header_bytes - 4]))
    return bytes(stream)


def greedy_zstd(data: bytes, window_log: int) -> bytes:
    """`data` as a zstd stream that asks for a window of 2**window_log bytes."""
    options = {int(zstd.CompressionParameter.window_log): window_log}
    compressor = zstd.ZstdCompressor(options={**options, int(zstd.CompressionParameter.content_size_flag): 0})
    return compressor.compress(data) + compressor.flush()


@_kept
def bomb(codec: str, head: bytes, size_bytes: int) -> bytes:
    """A stream that begins with `head` and goes on with zeros, `size_bytes` in all; made without holding them."""
    zeros = bytes(MIB)
    return _packed(codec, [head, *(zeros for _ in range((size_bytes - len(head)) // MIB))])


def sparse(path: Path, head: bytes, size_bytes: int) -> Path:
    """A new file of `size_bytes` that begins with `head` and takes no more room than that."""
    with path.open("xb") as file:
        file.write(head)
        file.truncate(size_bytes)
    return path


@_kept
def squashfs() -> bytes:
    """A squashfs with a run.sh in it."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "image"
        run("mksquashfs", job_directory(Path(directory) / "job"), path, "-quiet", "-no-progress")
        return path.read_bytes()


@_kept
def iso() -> bytes:
    """A CD image with a run.sh in it."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "image"
        run("genisoimage", "-quiet", "-R", "-o", path, job_directory(Path(directory) / "job"))
        return path.read_bytes()


def tar() -> bytes:
    """A tar archive with a run.sh in it: a job somebody packed the wrong way."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "job.tar"
        run("tar", "-cf", path, "-C", job_directory(Path(directory) / "job"), ".")
        return path.read_bytes()


def zipped() -> bytes:
    """A zip archive with a run.sh in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("run.sh", HELLO)
    return file.getvalue()
