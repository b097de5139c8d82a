"""Is this file a job? The program the gate starts for every upload, and the only one that looks into it.

    construir_ftp.judge LIMITS     the upload is standard input; one line of JSON (verdict) is standard output

It confines itself before it reads a byte, needs no path, writes no file and starts no program, so a jail can
leave it nothing but its own descriptors. libmagic says what the outer format is, and names in a refusal what was
found; what the file system is, and whether all of it is there, is for the superblock and the stream to prove. So a
script or an ELF header in block 0, which hides an ext4 from libmagic, does no harm, and a magic number alone no good.
"""

import math
import os
import resource
import signal
import sys
from collections.abc import Iterator
from typing import IO

import magic

from construir_ftp import stream, superblock, verdict
from construir_ftp.config import GateSection
from construir_ftp.errors import RefusedError
from construir_ftp.stream import Upload
from construir_ftp.superblock import Volume
from construir_ftp.verdict import Answer, Refusal, Verdict

_OUTER = {
    "gzip compressed data": "gzip",
    "bzip2 compressed data": "bzip2",
    "XZ compressed data": "xz",
    "Zstandard compressed data": "zstd",
    "LZ4 compressed data (v1.4+)": "lz4",
}
_NAMED_CHARACTERS = 60
# Address space of Python with all that is imported here, generously; limits.max_memory comes on top.
_PYTHON_BYTES = 256 * 2**20
_OPEN_FILES = 16


def judge(file: IO[bytes], limits: GateSection) -> Verdict:
    """What kind of job `file` is; on return every byte of it has been read once. Raises RefusedError if it is none.

    Reads no further than it must: a file system announces its size in its head, and more output than that ends
    the reading. A raw image of the wrong size is refused by its head alone.
    """
    upload = stream.Upload(file)
    if not upload.size_bytes:
        raise RefusedError("the upload is empty; make a job with: construir pack DIR")
    codec = _codec(upload)
    unpacked = stream.blocks(codec, upload, limits.max_memory)
    head, beyond_bytes = _take_head(unpacked)
    volume = _volume(codec, head)
    _check_limits(volume, upload.size_bytes, limits)
    if codec == "raw":
        _check_size(volume, upload.size_bytes)
    _check_size(volume, _measure(unpacked, len(head) + beyond_bytes, volume.size_bytes + volume.block_bytes))
    return Verdict(
        codec=codec,
        filesystem=volume.filesystem,
        upload_bytes=upload.size_bytes,
        image_bytes=volume.size_bytes,
        upload_sha256=upload.sha256(),
    )


def _codec(upload: Upload) -> str:
    words = _describe(upload.peek(superblock.HEAD_BYTES))
    return next((codec for start, codec in _OUTER.items() if words.startswith(start)), "raw")


def _describe(data: bytes) -> str:
    """What libmagic calls `data`, fit for an FTP reply whatever it quotes. Never unpacks (uncompress=True forks)."""
    try:
        words: str = magic.from_buffer(data)
    except magic.MagicException:
        words = "of an unknown kind"
    printable = "".join(character if " " <= character <= "~" else "?" for character in words)
    return printable if len(printable) <= _NAMED_CHARACTERS else printable[:_NAMED_CHARACTERS] + "..."


def _take_head(unpacked: Iterator[bytes]) -> tuple[bytes, int]:
    """The first HEAD_BYTES of the image, or all of a shorter one, and how many bytes were unpacked beyond them."""
    head = bytearray()
    for block in unpacked:
        head += block
        if len(head) >= superblock.HEAD_BYTES:
            break
    return bytes(head[: superblock.HEAD_BYTES]), max(0, len(head) - superblock.HEAD_BYTES)


def _volume(codec: str, head: bytes) -> Volume:
    volume = superblock.read(head)
    if volume is None:
        found = _describe(head) if codec == "raw" else f"{_describe(head)}, in {codec}"
        raise RefusedError(f"not a file system image ({found}); make one with: construir pack DIR")
    return volume


def _check_limits(volume: Volume, upload_bytes: int, limits: GateSection) -> None:
    if volume.filesystem not in limits.filesystems:
        raise RefusedError(
            f"{volume.filesystem} is not accepted here; make an image of {', '.join(limits.filesystems)}"
        )
    size_bytes = volume.size_bytes
    if size_bytes > limits.max_image:
        raise RefusedError(
            f"the image unpacks to {_in_units(size_bytes)}; at most {_in_units(limits.max_image)} are accepted here",
            552,
        )
    if size_bytes > max(limits.ratio_free, limits.max_ratio * upload_bytes):
        raise RefusedError(
            f"the image unpacks to {_in_units(size_bytes)}, more than {limits.max_ratio} times the"
            f" {_in_units(upload_bytes)} uploaded; make it with less empty space",
            552,
        )


def _measure(unpacked: Iterator[bytes], seen_bytes: int, enough_bytes: int) -> int:
    """Length of the image, or where reading stopped because it reached `enough_bytes`."""
    while seen_bytes < enough_bytes and (block := next(unpacked, b"")):
        seen_bytes += len(block)
    return seen_bytes


def _check_size(volume: Volume, real_bytes: int) -> None:
    """A file system may be followed by less than one of its blocks: a file's length need not be a multiple of it."""
    if real_bytes < volume.size_bytes:
        raise RefusedError(
            f"the image ends after {real_bytes} of the {volume.size_bytes} bytes of its file system:"
            " it is cut short; send it again"
        )
    if real_bytes >= volume.size_bytes + volume.block_bytes:
        raise RefusedError(f"the image goes on after the {volume.size_bytes} bytes of its file system; cut it there")


def _in_units(size_bytes: int) -> str:
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.1f} {name}"
    return f"{size_bytes} bytes"


# -- the process -----------------------------------------------------------------------------------------


def main() -> None:
    """Judge standard input; print one line, whatever it holds."""
    limits = verdict.decode_limits(sys.argv[1])
    _describe(b"")  # so that libmagic has its database before files can't be opened any more
    _confine(limits)
    sys.stdout.buffer.write(verdict.encode_answer(_answer(limits)))
    sys.stdout.buffer.flush()


def _confine(limits: GateSection) -> None:
    """Give up whatever isn't needed. The alarm (SIGALRM ends the process) is for a judge whose gate has died."""
    seconds = math.ceil(limits.timeout)
    ceilings = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: limits.max_memory + _PYTHON_BYTES,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_NPROC: 0,
    }
    for what, ceiling in ceilings.items():
        hard = resource.getrlimit(what)[1]
        lowered = ceiling if hard == resource.RLIM_INFINITY else min(ceiling, hard)
        resource.setrlimit(what, (lowered, lowered))
    signal.alarm(seconds)


def _answer(limits: GateSection) -> Answer:
    """The verdict on standard input, which is on stable storage by then, so that admitting the job is quick."""
    try:
        with open(0, "rb", buffering=0, closefd=False) as file:
            found = judge(file, limits)
            os.fsync(file.fileno())
            return found
    except RefusedError as error:
        return Refusal(reason=str(error), reply=error.reply)
    except MemoryError:
        return Refusal(reason="looking at it takes more memory than is given here", reply=550)
    except OSError as error:
        return Refusal(reason=f"the server can't read it back ({error.strerror}); try again later", reply=452)


if __name__ == "__main__":
    main()
