"""The files inside an ext2, ext3 or ext4 image, read without mounting it and without root.

An image that comes back from a job is hostile: debugfs(8), which could do this, follows a name like `../x` out of
the directory it writes to, and writes through a symbolic link if an image has two entries of one name. Here every
number is checked before it is followed, no more blocks are read than the image has (a file system whose files share
blocks, or whose tables run in circles, ends in an error and not in a full disk), and names go to the caller as they
are. docs/intake.md says of each feature whether it is read, docs/limits.md what bounds the reading.

Sources: Linux, Documentation/filesystems/ext4; __ext4_iget in fs/ext4/inode.c.
"""

import math
import os
import stat
from collections.abc import Callable, Iterator
from itertools import chain
from typing import IO

from construir_ftp.diskimage import ext_blocks, ext_directory
from construir_ftp.diskimage.ext_blocks import Run
from construir_ftp.diskimage.ext_features import Incompat
from construir_ftp.diskimage.ext_inodes import ROOT, Flag, Inode, Inodes, Source
from construir_ftp.errors import ConstruirError

__all__ = ["MOST_DIRECTORY_BYTES", "ROOT", "Image", "Inode", "Source"]

_FAST_LINK_BYTES = 60
_READ_BLOCKS = 256
# Of a large directory so many blocks are looked into for what might be meant by a name.
_WHOLE_BLOCKS = 64
# Of a directory in the inode the first four bytes are its parent's number (inlinedata.rst).
_PARENT_BYTES = 4
# A name is looked for in a directory of so many bytes at most: some 400,000 files.
MOST_DIRECTORY_BYTES = 16 * 2**20


class Image(Inodes):
    """An open image. Raises ConstruirError wherever it is damaged, or has a feature not known here."""

    def __init__(self, file: IO[bytes] | Source) -> None:
        super().__init__(file)
        # A file that ends before its file system does is read as far as it goes.
        self._blocks = self.ext.blocks if isinstance(file, Source) else min(self.ext.blocks, self._file_blocks(file))
        self._unread_blocks = self._unread_pointers = self._blocks
        # How much of directories may be looked through for names, all in all: the same one may be come to many times.
        self.look_bytes = math.inf

    def _file_blocks(self, file: IO[bytes]) -> int:
        return file.seek(0, os.SEEK_END) // self.ext.block_bytes

    def find(self, *names: bytes) -> Inode | None:
        """The inode that the names lead to from the root directory, if there is one; no symbolic link is followed.

        Raises ConstruirError where the machine would find something else there, or nothing, because of damage.
        """
        inode = self.inode(ROOT)
        if inode.kind != stat.S_IFDIR or not inode.links:
            raise ConstruirError("the image is damaged: it has no root directory")
        for name in names:
            below = self.child(inode, name)
            if below is None:
                return None
            inode = below
        return inode

    def child(self, parent: Inode, name: bytes) -> Inode | None:
        """What has a name in `parent`; None if nothing has, or it is no directory. Raises ConstruirError as `find`."""
        number = self.lookup(parent, name) if parent.kind == stat.S_IFDIR else None
        return None if number is None else self.named(number)

    def lookup(self, directory: Inode, name: bytes) -> int | None:
        """The number of the inode that has a name in a directory, None if none has.

        Blocks are read in the order in which they lie in the image, until the name is found. Raises ConstruirError
        where that can't be said: the directory is damaged, encrypted, or longer than MOST_DIRECTORY_BYTES.
        """
        folds = directory.flags & Flag.CASEFOLD and self.ext.incompat & Incompat.CASEFOLD
        alike = ext_directory.folded(name)
        for block in self._blocks_by_place(directory):
            if not folds and name not in block:
                continue
            for found, number in ext_directory.entries(block):
                if found == name:
                    return number
                if folds and ext_directory.folded(found) == alike:
                    raise ConstruirError(f"in a directory with casefold, {found!a} may be taken for {name.decode()}")
        return None

    def entries_by_place(self, directory: Inode, name: bytes) -> Iterator[tuple[bytes, int]]:
        """As `entries`, in the order in which they lie in the image, of a directory that `lookup` takes.

        All of its first blocks; of more only those that have `name` in them.
        """
        for count, block in enumerate(self._blocks_by_place(directory)):
            if count < _WHOLE_BLOCKS or name in block:
                yield from ext_directory.entries(block)

    def _blocks_by_place(self, directory: Inode) -> Iterator[bytes]:
        if directory.size_bytes > MOST_DIRECTORY_BYTES:
            raise ConstruirError(f"a directory has more than {MOST_DIRECTORY_BYTES >> 20} MiB of names")
        for block in self._directory_blocks(directory, self.scattered(directory)):
            self.look_bytes -= len(block)
            if self.look_bytes < 0:
                raise ConstruirError("its directories are so large that they would be looked through again and again")
            yield block

    def named(self, number: int) -> Inode:
        """An inode that an entry names, if the kernel takes it."""
        inode = self.inode(number)
        if number < self.ext.first_inode or not inode.links or inode.flags & Flag.ATTRIBUTE:
            raise ConstruirError(f"the image is damaged: a file in it is deleted, or none (inode {number})")
        return inode

    def text(self, inode: Inode) -> bytes:
        """All that is in a file, which has to be a short one; holes are zeros."""
        whole = bytearray(inode.size_bytes)
        for offset, data in self.scattered(inode):
            whole[offset : offset + len(data)] = data
        return bytes(whole)

    # -- content -----------------------------------------------------------------------------------------

    def content(self, inode: Inode) -> Iterator[tuple[int, bytes]]:
        """What is in a file or directory: (offset in bytes, data), holes left out, in pieces of 1 MiB at most."""
        if self._is_inline(inode):
            yield 0, self._inline(inode)
            return
        for run in self._runs(inode):
            self._spend(run)
            yield from self._pieces(inode, run)

    def scattered(self, inode: Inode) -> Iterator[tuple[int, bytes]]:
        """The same in the order in which it lies in the image. Only for what is short: a name, a text, a directory."""
        if self._is_inline(inode):
            yield 0, self._inline(inode)
            return
        blocks = -(-inode.size_bytes // self.ext.block_bytes)
        extents = bool(inode.flags & Flag.EXTENTS)
        for run in ext_blocks.by_place(inode.map, extents=extents, read=self._pointed_at, blocks=blocks):
            self._spend(run)
            yield from self._pieces(inode, run)

    def check(self, inode: Inode) -> None:
        """See that all of a file can be read, and count its blocks; `stream` need not fail then.

        Raises ConstruirError where it can't: an extent makes no sense, it is encrypted, lies outside of the image, or
        the image would have more blocks with it than it has. Other files can be read all the same.
        """
        before = self._unread_blocks
        try:
            if self._is_inline(inode):
                self._inline(inode)
            else:
                for run in self._runs(inode):
                    self._spend(run)
        except ConstruirError:
            self._unread_blocks = before
            raise

    def stream(self, inode: Inode) -> Iterator[bytes]:
        """All that is in a file that was checked, from beginning to end; holes, maybe terabytes, are zeros."""
        at = 0
        piece = _READ_BLOCKS * self.ext.block_bytes
        for offset, data in chain(self._checked(inode), [(inode.size_bytes, b"")]):
            for hole in range(at, offset, piece):
                yield bytes(min(piece, offset - hole))
            yield data
            at = offset + len(data)

    def _checked(self, inode: Inode) -> Iterator[tuple[int, bytes]]:
        if self._is_inline(inode):
            yield 0, self._inline(inode)
            return
        for run in self._runs(inode, self._read_pointers):
            yield from self._pieces(inode, run)

    def _pieces(self, inode: Inode, run: Run) -> Iterator[tuple[int, bytes]]:
        block_bytes = self.ext.block_bytes
        for skip in range(0, run.blocks, _READ_BLOCKS):
            offset = (run.first + skip) * block_bytes
            wanted = min(min(_READ_BLOCKS, run.blocks - skip) * block_bytes, inode.size_bytes - offset)
            if wanted > 0:
                yield offset, self._read(run.place + skip, wanted)

    def link_target(self, inode: Inode) -> bytes:
        """Where a symbolic link points; short ones are kept in the inode itself."""
        self._require_plain(inode)
        if inode.size_bytes < _FAST_LINK_BYTES and not inode.flags & Flag.EXTENTS:
            return inode.map[: inode.size_bytes]
        if inode.size_bytes >= self.ext.block_bytes:
            raise ConstruirError(f"the image is damaged: the symbolic link in inode {inode.number} has no end")
        return b"".join(data for _, data in self.content(inode))

    def entries(self, inode: Inode) -> Iterator[tuple[bytes, int]]:
        """Name and inode number of what is in a directory, except `.` and `..`; a name is any bytes at all."""
        for block in self._directory_blocks(inode, self.content(inode)):
            yield from ext_directory.entries(block)

    def _directory_blocks(self, inode: Inode, content: Iterator[tuple[int, bytes]]) -> Iterator[bytes]:
        if self._is_inline(inode):
            yield inode.map[_PARENT_BYTES:]
            yield ext_directory.data_in_inode(inode.tail)
            return
        for _, data in content:
            for start in range(0, len(data), self.ext.block_bytes):
                yield data[start : start + self.ext.block_bytes]

    def _require_plain(self, inode: Inode) -> None:
        if inode.flags & Flag.ENCRYPTED:
            raise ConstruirError("it is encrypted (the feature encrypt): decrypt it before")

    def _is_inline(self, inode: Inode) -> bool:
        self._require_plain(inode)
        return bool(inode.flags & Flag.INLINE_DATA)

    def _inline(self, inode: Inode) -> bytes:
        return (inode.map + ext_directory.data_in_inode(inode.tail))[: inode.size_bytes]

    def _read(self, block: int, size_bytes: int) -> bytes:
        data = self._pread(size_bytes, block * self.ext.block_bytes)
        if len(data) != size_bytes:
            raise ConstruirError("the image is cut short")
        return data

    def _require_in_image(self, block: int, count: int) -> None:
        if not 0 < block <= self._blocks - count:
            raise _outside()

    def _spend(self, run: Run) -> None:
        """Before a run is read: it is in the image, and the image has as many blocks as were read from it."""
        self._require_in_image(run.place, run.blocks)
        self._unread_blocks -= run.blocks
        if self._unread_blocks < 0:
            raise _outside()

    def _runs(self, inode: Inode, read: Callable[[int], bytes] | None = None) -> Iterator[Run]:
        extents = bool(inode.flags & Flag.EXTENTS)
        return ext_blocks.in_order(inode.map, extents=extents, read=read or self._pointed_at)

    def _pointed_at(self, block: int) -> bytes:
        """A block that leads to others; of them, too, no more are read than the image has blocks."""
        self._unread_pointers -= 1
        if self._unread_pointers < 0:
            raise _outside()
        return self._read_pointers(block)

    def _read_pointers(self, block: int) -> bytes:
        self._require_in_image(block, 1)
        return self._read(block, self.ext.block_bytes)


def _outside() -> ConstruirError:
    return ConstruirError("the image is damaged: files lie outside of it, or share their blocks")
