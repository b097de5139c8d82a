"""The outer format of an upload, unpacked inside this process, in small pieces and within bounds.

For the judge, which has to see a compressed stream's every byte and believe none. A stream is whole when the end marks
and check sums of all its members are right, and nothing follows but zeros. Nothing here writes a file or starts a
program; codec does the same work with the system's tools once an upload has been accepted.
"""

import errno
import hashlib
from collections.abc import Iterator
from typing import IO, Protocol

from construir_ftp import formats
from construir_ftp.diskimage import members
from construir_ftp.diskimage.members import READ_BYTES, Members, Pieces
from construir_ftp.errors import RefusedError
from construir_ftp.formats import MAGIC_BYTES


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


class Stream:
    """What is inside `upload`, in blocks of at most 1 MiB, however far the stream expands; of raw, the upload itself.

    When the iterator ends, the stream was whole, its check sums right, and the upload has been read to its
    end, which is known: `padding_bytes` zeros are after the end of the stream. Raises RefusedError if it is cut short,
    damaged, followed by what is no part of it, or asks for more than `max_memory_bytes` (or MEMORY_BYTES, or a window
    of 128 MiB) to be unpacked.
    """

    def __init__(self, codec: str, upload: UploadReader, max_memory_bytes: int) -> None:
        self._codec, self._upload = codec, upload
        self._pieces = Pieces(upload)
        self._members = Members(codec, self._pieces, max_memory_bytes)
        self.padding_bytes = 0
        self._blocks = self._raw() if codec == "raw" else self._unpacked()

    @property
    def may_go_on(self) -> bool:
        """Whether what has been read so far can be the beginning of a longer stream, whole as it is."""
        return self._codec == "raw" or self._members.count > 1

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._blocks)

    def _raw(self) -> Iterator[bytes]:
        while block := self._upload.read(READ_BYTES):
            yield block

    def _unpacked(self) -> Iterator[bytes]:
        yield from self._members.next()
        while self._goes_on():
            yield from self._members.next()

    def _goes_on(self) -> bool:
        """Whether another member follows; whatever else may follow has been read then. Raises RefusedError."""
        end_bytes = self._pieces.taken_bytes
        zeros = self._pieces.skip_zeros()
        head = self._pieces.peek(MAGIC_BYTES)
        if not head:
            self.padding_bytes = zeros
            return False
        unit = formats.find(self._codec).padding_unit
        is_in_place = not zeros or (unit > 0 and zeros % unit == 0)
        if is_in_place and formats.is_member(self._codec, head):
            return True
        if is_in_place and len(head) < MAGIC_BYTES and formats.may_become_member(self._codec, head):
            raise members.cut(self._codec)
        raise self._refusal_of_the_rest(head, end_bytes)

    def _refusal_of_the_rest(self, head: bytes, end_bytes: int) -> RefusedError:
        other = formats.of_content(head).name
        if other not in ("raw", self._codec):
            return RefusedError(
                f"a {other} stream follows the end of the {self._codec} stream; unpack both, and compress the whole"
                " once, for instance with: zstd -3 IMAGE"
            )
        return RefusedError(
            f"what follows the end of the {self._codec} stream is no part of it;"
            f" cut it off with: truncate -s {end_bytes} FILE"
        )
