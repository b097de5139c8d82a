"""The outer format of an upload, unpacked inside this process, in small pieces and within bounds.

For the judge, which has to see a compressed stream's every byte and believe none. A stream is whole when
its end mark and check sums are right and nothing follows. Nothing here writes a file or starts a program;
codec does the same work with the system's tools once an upload has been accepted.
"""

import bz2
import errno
import hashlib
import lzma
import sys
import zlib
from collections.abc import Iterator
from typing import IO, Protocol

import lz4.frame

from construir_ftp.errors import RefusedError
from construir_ftp.formats import FORMATS, MEMORY_BYTES, ZSTD_WINDOW_LOG

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_READ_BYTES = 256 * 1024
_BLOCK_BYTES = 1024 * 1024


class Growth(Protocol):
    """What a reader asks. Sizes in bytes; `most_bytes` is what all of it can have at most, which at the end it has."""

    size_bytes: int
    most_bytes: int
    is_whole: bool

    def wait(self, beyond_bytes: int) -> None:
        """Return when there are more bytes than these, or all there will ever be."""

    def look(self) -> None:
        """Take note of what is known by now, without waiting."""


class Whole:
    """A file that has stopped growing."""

    is_whole = True

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = self.most_bytes = size_bytes

    def wait(self, beyond_bytes: int) -> None:
        """Return at once."""

    def look(self) -> None:
        """Nothing changes any more."""


class UploadReader:
    """A file read once, from front to back, perhaps while it grows; what has been read is digested (SHA-256).

    Its own reading position is the file's start. Reading waits for what is still to come.
    """

    def __init__(self, file: IO[bytes], growth: Growth | None = None) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._growth = growth or Whole(file.seek(0, 2))
        self._read_bytes = 0
        file.seek(0)

    @property
    def is_whole(self) -> bool:
        """Whether its end is known."""
        self._growth.look()
        return self._growth.is_whole

    @property
    def size_bytes(self) -> int:
        """Its length, as far as it is known."""
        return self._growth.size_bytes

    @property
    def most_bytes(self) -> int:
        """What its length can be at most, by what is known now."""
        self._growth.look()
        return self._growth.most_bytes

    @property
    def left_bytes(self) -> int:
        """How much of what is known to be there has not been read."""
        return self._growth.size_bytes - self._read_bytes

    def peek(self, size_bytes: int) -> bytes:
        """The first bytes, before anything has been read; they stay unread."""
        self._growth.wait(size_bytes - 1)
        data = self._file.read(min(size_bytes, self._growth.size_bytes))
        self._file.seek(0)
        return data

    def read(self, size_bytes: int) -> bytes:
        """The next bytes, empty at the end. Raises OSError where the file is shorter than it is said to be."""
        self.wait()
        data = self._file.read(min(size_bytes, self.left_bytes))
        if self.left_bytes and not data:
            raise OSError(errno.EIO, "shorter than it was")
        self._digest.update(data)
        self._read_bytes += len(data)
        return data

    def wait(self) -> None:
        """Return when there is something to read, or the end is known."""
        self._growth.wait(self._read_bytes)

    def again(self) -> "UploadReader":
        """The same file from its start; for when all of it has been read."""
        return UploadReader(self._file, Whole(self.size_bytes))

    @property
    def read_bytes(self) -> int:
        """How much of it has been read."""
        return self._read_bytes

    def pread(self, size_bytes: int, offset_bytes: int) -> bytes:
        """Any part of it, once all of it has been read."""
        self._file.seek(offset_bytes)
        return self._file.read(size_bytes)

    def sha256(self) -> str:
        """Digest, in hexadecimal, of what has been read: of the upload, once the end has been seen."""
        return self._digest.hexdigest()


class _Decoder(Protocol):
    """What bz2, lzma, lz4.frame and zstd agree on."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib's decompressor in the manner of the others. 16 + 15: one gzip member (RFC 1952), any window (zlib.h)."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(16 + 15)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        block = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        # A full block may leave more inside zlib even when no input is left.
        self.needs_input = not self._zlib.unconsumed_tail and len(block) < max_length
        return block


def _decoder(codec: str, max_memory_bytes: int) -> _Decoder:
    if codec == "gzip":
        return _Gzip()
    if codec == "bzip2":
        return bz2.BZ2Decompressor()
    if codec == "xz":
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=min(max_memory_bytes, MEMORY_BYTES))
    if codec == "zstd":
        window_log = min(ZSTD_WINDOW_LOG, max_memory_bytes.bit_length() - 1)
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: window_log})
    decoder: _Decoder = lz4.frame.LZ4FrameDecompressor()
    return decoder


def blocks(codec: str, upload: UploadReader, max_memory_bytes: int) -> Iterator[bytes]:
    """What is inside `upload`, in blocks of at most 1 MiB, however far the stream expands.

    When the iterator ends, the stream was whole, its check sums right, and the upload has been read to its
    end, which is known. Raises RefusedError if it is cut short, damaged, goes on after its end, or asks for more than
    `max_memory_bytes` (or MEMORY_BYTES, or a window of 128 MiB) to be unpacked.
    """
    if codec == "raw":
        while block := upload.read(_READ_BYTES):
            yield block
        return
    decoder = _decoder(codec, max_memory_bytes)
    while not decoder.eof:
        data = upload.read(_READ_BYTES) if decoder.needs_input else b""
        if decoder.needs_input and not data:
            raise RefusedError(f"the {codec} stream ends early: the upload is cut short; send it again", is_cut=True)
        if block := _decompress(codec, decoder, data):
            yield block
    _check_end(codec, decoder, upload)


def _decompress(codec: str, decoder: _Decoder, data: bytes) -> bytes:
    try:
        return decoder.decompress(data, max_length=_BLOCK_BYTES)
    # bz2 says OSError, lz4 RuntimeError.
    except (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, RuntimeError, ValueError, EOFError) as error:
        if "memory" in str(error).lower():
            raise _too_much_memory(codec) from error
        raise RefusedError(f"the {codec} stream is damaged; compress and send it again") from error
    except MemoryError as error:
        raise _too_much_memory(codec) from error


def _too_much_memory(codec: str) -> RefusedError:
    cure = FORMATS[codec].recompress
    return RefusedError(f"unpacking this {codec} stream takes more memory than is given here; {cure}")


def _check_end(codec: str, decoder: _Decoder, upload: UploadReader) -> None:
    # An integrity check this liblzma doesn't know goes unverified, and makes xz(1) fail.
    if isinstance(decoder, lzma.LZMADecompressor) and not lzma.is_check_supported(decoder.check):
        raise RefusedError("the xz stream has an unknown kind of integrity check; compress again with xz -6")
    if not decoder.unused_data:
        upload.wait()
    is_whole = upload.is_whole
    trailing_bytes = len(decoder.unused_data or b"") + upload.left_bytes
    if trailing_bytes:
        count = f"{trailing_bytes}" if is_whole else f"at least {trailing_bytes}"
        raise RefusedError(f"{count} bytes follow the end of the {codec} stream; compress as a single stream")
