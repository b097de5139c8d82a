"""What is inside an upload, read again: any part of it, by unpacking from the start where that must be.

For the judge, which has seen the whole of a stream and remembers its beginning only. How much is unpacked again is
bounded: an image whose parts lie in an order that sends the reader back and forth is no reason to keep a processor.
"""

from collections.abc import Iterator

from construir_ftp.diskimage.stream import Stream, UploadReader
from construir_ftp.errors import ConstruirError

# Sound images take none, since what is looked for lies in the beginning that is remembered, or one or two.
MOST_TIMES = 4
_KEPT_BYTES = 2**20


class Replay:
    """The image of `image_bytes` in an upload that was found whole. `head` is what is remembered of its beginning.

    Reading onwards costs what it costs once; reading backwards, except in the head and the last MiB, begins anew. What
    is unpacked, and what is read of the upload for that, may be MOST_TIMES the image and the upload in all.
    """

    def __init__(
        self, codec: str, upload: UploadReader, max_memory_bytes: int, head: bytes | bytearray, image_bytes: int
    ) -> None:
        self._codec, self._upload, self._max_memory_bytes, self._head = codec, upload, max_memory_bytes, head
        self._left_bytes = MOST_TIMES * (image_bytes + upload.size_bytes)
        self._again = upload
        self._unpacked: Iterator[bytes] = iter(())
        self._window, self._start_bytes = b"", 0

    def pread(self, size_bytes: int, offset_bytes: int) -> bytes:
        """As pread(2): less at the end.

        Raises RefusedError where the upload has changed meanwhile, ConstruirError where too much would have to be
        unpacked again.
        """
        if offset_bytes + size_bytes <= len(self._head):
            return bytes(memoryview(self._head)[offset_bytes : offset_bytes + size_bytes])
        if self._codec == "raw":
            return self._upload.pread(size_bytes, offset_bytes)
        if not self._window or offset_bytes < self._start_bytes:
            self._begin()
        while self._start_bytes + len(self._window) < offset_bytes + size_bytes:
            block = self._next()
            if not block:
                break
            unneeded = min(max(0, offset_bytes - self._start_bytes), max(0, len(self._window) - _KEPT_BYTES))
            self._window = self._window[unneeded:] + block
            self._start_bytes += unneeded
        at = offset_bytes - self._start_bytes
        return self._window[at : at + size_bytes]

    def _begin(self) -> None:
        self._again = self._upload.again()
        self._unpacked = Stream(self._codec, self._again, self._max_memory_bytes)
        self._window, self._start_bytes = b"", 0

    def _next(self) -> bytes:
        before_bytes = self._again.read_bytes
        block = next(self._unpacked, b"")
        self._left_bytes -= len(block) + self._again.read_bytes - before_bytes
        if self._left_bytes < 0:
            raise ConstruirError(
                f"its parts lie so far apart that it would be unpacked more than {MOST_TIMES} times;"
                " send it uncompressed, or make it anew with: construir pack DIR"
            )
        return block
