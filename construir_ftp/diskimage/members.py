"""What a compressed stream consists of: its members, one after another, and what may stand between and after them.

gzip and bzip2 call a member by that name, xz a stream, zstd and lz4 a frame. All of them say that members which follow
one another are one content (RFC 1952, 2.2; xz file format, 2; RFC 8878, 3.1; LZ4 frame format, "Frame concatenation").
"""

import bz2
import lzma
import struct
import sys
import zlib
from collections.abc import Iterator
from typing import Protocol

import lz4.frame

from construir_ftp import formats
from construir_ftp.errors import RefusedError
from construir_ftp.formats import FORMATS, MEMORY_BYTES, ZSTD_WINDOW_LOG

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

READ_BYTES = 256 * 1024
_BLOCK_BYTES = 1024 * 1024
# What a decoder does not need of a piece is copied. So each member but the first begins with a short one, lest many
# small members take a time that grows by the square.
_FIRST_PIECE_BYTES = 4 * 1024


class Source(Protocol):
    """What is read: the next bytes, empty at the end."""

    def read(self, size_bytes: int) -> bytes: ...


class Pieces:
    """A source in pieces, whose end may be given back. The next bytes can be seen before they are taken."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._data, self._at = b"", 0
        self.taken_bytes = 0

    def take(self, most_bytes: int) -> memoryview:
        """The next bytes, so many at most; empty at the end."""
        if self._at == len(self._data):
            self._data, self._at = self._source.read(READ_BYTES), 0
        piece = memoryview(self._data)[self._at : self._at + most_bytes]
        self._at += len(piece)
        self.taken_bytes += len(piece)
        return piece

    def give_back(self, size_bytes: int) -> None:
        """The last bytes of the piece that was taken last are to come again."""
        self._at -= size_bytes
        self.taken_bytes -= size_bytes

    def peek(self, size_bytes: int) -> bytes:
        """The next bytes, which are not taken; less at the end."""
        while len(self._data) - self._at < size_bytes and (more := self._source.read(READ_BYTES)):
            self._data, self._at = self._data[self._at :] + more, 0
        return self._data[self._at : self._at + size_bytes]

    def skip_zeros(self) -> int:
        """Take zeros, as many as there are; how many."""
        count = 0
        while piece := bytes(self.take(READ_BYTES)):
            rest = len(piece.lstrip(b"\0"))
            count += len(piece) - rest
            if rest:
                self.give_back(rest)
                break
        return count


class Decoder(Protocol):
    """What bz2, lzma, lz4.frame and zstd agree on. Each decodes one member."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...
    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes: ...


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

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes:
        tail = self._zlib.unconsumed_tail
        block = self._zlib.decompress(tail + data if tail else data, max_length)
        # A full block may leave more inside zlib even when no input is left.
        self.needs_input = not self._zlib.unconsumed_tail and len(block) < max_length
        return block


class _Skippable:
    """A frame of zstd or lz4 that holds nothing for a decoder: eight bytes of head, the last four its length
    (RFC 8878, 3.1.2).
    """

    needs_input = True

    def __init__(self) -> None:
        self._head = b""
        self._left_bytes = 0
        self.eof = False
        self.unused_data = b""

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes:
        del max_length
        if missing := 8 - len(self._head):
            self._head += data[:missing]
            data = data[missing:]
            if len(self._head) < 8:
                return b""
            self._left_bytes = struct.unpack("<I", self._head[4:])[0]
        skipped = min(self._left_bytes, len(data))
        self._left_bytes -= skipped
        if not self._left_bytes:
            self.eof, self.unused_data = True, bytes(data[skipped:])
        return b""


class Members:
    """The members of one stream, each to be decoded within `max_memory_bytes`, in the order in which they come."""

    def __init__(self, codec: str, pieces: Pieces, max_memory_bytes: int) -> None:
        self._codec, self._pieces, self._max_memory_bytes = codec, pieces, max_memory_bytes
        self.count = 0

    def next(self) -> Iterator[bytes]:
        """What is in the next one, in blocks of at most 1 MiB.

        When the iterator ends, the member was whole and its check sums right, and no byte after it has been taken.
        Raises RefusedError if it is cut short, damaged, or asks for too much memory.
        """
        decoder = self._decoder()
        size_bytes = _FIRST_PIECE_BYTES if self.count else READ_BYTES
        while not decoder.eof:
            data: bytes | memoryview = b""
            if decoder.needs_input:
                data = self._pieces.take(size_bytes)
                size_bytes = min(2 * size_bytes, READ_BYTES)
                if not data:
                    raise cut(self._codec)
            if block := self._decompress(decoder, data):
                yield block
        # An integrity check this liblzma doesn't know goes unverified, and makes xz(1) fail.
        if isinstance(decoder, lzma.LZMADecompressor) and not lzma.is_check_supported(decoder.check):
            raise RefusedError("the xz stream has an unknown kind of integrity check; compress again with xz -6")
        self._pieces.give_back(len(decoder.unused_data or b""))
        self.count += 1

    def _decoder(self) -> Decoder:
        codec, most_bytes = self._codec, self._max_memory_bytes
        if formats.is_skippable(codec, self._pieces.peek(4)):
            return _Skippable()
        if codec == "gzip":
            return _Gzip()
        if codec == "bzip2":
            return bz2.BZ2Decompressor()
        if codec == "xz":
            return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=min(most_bytes, MEMORY_BYTES))
        if codec == "zstd":
            window_log = min(ZSTD_WINDOW_LOG, most_bytes.bit_length() - 1)
            return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: window_log})
        decoder: Decoder = lz4.frame.LZ4FrameDecompressor()
        return decoder

    def _decompress(self, decoder: Decoder, data: bytes | memoryview) -> bytes:
        try:
            return decoder.decompress(data, max_length=_BLOCK_BYTES)
        # bz2 says OSError, lz4 RuntimeError.
        except (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, RuntimeError, ValueError, EOFError) as error:
            words = str(error).lower()
            if "memory" in words:
                raise self._too_much_memory() from error
            if "dictionary" in words:
                raise RefusedError(
                    "the zstd stream needs the dictionary it was made with; compress again without:"
                    " zstd -D DICTIONARY -dc FILE | zstd -c >job.img.zst"
                ) from error
            raise RefusedError(f"the {self._codec} stream is damaged; compress and send it again") from error
        except MemoryError as error:
            raise self._too_much_memory() from error

    def _too_much_memory(self) -> RefusedError:
        cure = FORMATS[self._codec].recompress
        return RefusedError(f"unpacking this {self._codec} stream takes more memory than is given here; {cure}")


def cut(codec: str) -> RefusedError:
    """The refusal of a stream whose end is missing."""
    return RefusedError(f"the {codec} stream ends early: the upload is cut short; send it again", is_cut=True)
