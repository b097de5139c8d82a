"""The files inside an ext2, ext3 or ext4 image, read without mounting it and without root.

An image that comes back from a job is hostile: debugfs(8), which could do this, follows a name like `../x` out of
the directory it writes to, and writes through a symbolic link if an image has two entries of one name. Here every
number is checked before it is followed, each block is read at most once (a file system whose files share blocks, or
whose tables run in circles, ends in an error and not in a full disk), and names go to the caller as they are.

Sources: Linux, Documentation/filesystems/ext4 (group_descr.rst, inodes.rst, ifork.rst, directory.rst).
"""

import stat
import struct
from collections.abc import Callable, Iterator
from itertools import chain
from typing import IO, Protocol, runtime_checkable

import msgspec

from construir_ftp.diskimage import superblock
from construir_ftp.errors import ConstruirError

ROOT = 2

_INCOMPAT_META_BG = 0x10
_FLAG_ENCRYPTED = 0x800
_FLAG_EXTENTS = 0x80000
_FLAG_INLINE_DATA = 0x10000000

_EXTENT_MAGIC = 0xF30A
_EXTENT_DEPTH = 5
# Longer than that means "allocated, never written": it reads as zeros, like a hole.
_EXTENT_BLOCKS = 32_768
_FAST_LINK_BYTES = 60
_READ_BLOCKS = 256
# With all of the times' fields (inodes.rst, i_extra_isize).
_WIDE_INODE_BYTES = 256

Run = tuple[int, int, int]  # first block within the file, first block within the image, number of blocks


@runtime_checkable
class Source(Protocol):
    """An image that is no file, to be read only."""

    def pread(self, size_bytes: int, offset_bytes: int) -> bytes:
        """As pread(2)."""


class Inode(msgspec.Struct, frozen=True):
    """What is known of a file without reading it. `map` is i_block: 60 bytes that lead to its blocks."""

    number: int
    mode: int
    uid: int
    gid: int
    size_bytes: int
    mtime_ns: int
    flags: int
    map: bytes

    @property
    def kind(self) -> int:
        """S_IFREG, S_IFDIR, S_IFLNK, or something else (inode(7))."""
        return stat.S_IFMT(self.mode)


class Image:
    """An open image. Raises ConstruirError wherever it is damaged, or has a feature not known here."""

    def __init__(self, file: IO[bytes] | Source) -> None:
        self._file = file
        ext = superblock.read_ext(self._pread(superblock.HEAD_BYTES, 0))
        if ext is None:
            raise ConstruirError("not an ext2, ext3 or ext4 image; only those are read without mounting")
        if ext.incompat & _INCOMPAT_META_BG:
            raise ConstruirError("an ext image with the feature meta_bg can't be read without mounting")
        self.ext = ext
        self._unread_blocks = ext.blocks

    def _pread(self, size_bytes: int, offset_bytes: int) -> bytes:
        if isinstance(self._file, Source):
            return self._file.pread(size_bytes, offset_bytes)
        # Not pread(2), which Windows has not.
        self._file.seek(offset_bytes)
        return self._file.read(size_bytes)

    def _pwrite(self, data: bytes, offset_bytes: int) -> None:
        assert not isinstance(self._file, Source)
        self._file.seek(offset_bytes)
        self._file.write(data)

    def find(self, *names: bytes) -> Inode | None:
        """The inode that the names lead to from the root directory, if there is one; no symbolic link is followed."""
        inode = self.inode(ROOT)
        for name in names:
            number = dict(self.entries(inode)).get(name) if inode.kind == stat.S_IFDIR else None
            if number is None:
                return None
            inode = self.inode(number)
        return inode

    def text(self, inode: Inode) -> bytes:
        """All that is in a file, which has to be a short one; holes are zeros."""
        whole = bytearray(inode.size_bytes)
        for offset, data in self.content(inode):
            whole[offset : offset + len(data)] = data
        return bytes(whole)

    # -- inodes ------------------------------------------------------------------------------------------

    def inode(self, number: int) -> Inode:
        """The inode of that number, as directories name it."""
        data = self._pread(self.ext.inode_bytes, self._inode_offset(number)).ljust(256, b"\0")
        mode, uid_low, size_low, mtime, gid_low, flags = struct.unpack_from("<HHI8xi4xH6xI", data)
        size_high, uid_high, gid_high, extra_bytes, mtime_extra = struct.unpack_from("<I8xHH4xH6xI", data, 108)
        size_bytes = size_low + (size_high << 32 if stat.S_ISREG(mode) else 0)
        if size_bytes > self.ext.block_bytes << 32:  # blocks of a file are numbered in 32 bits
            raise ConstruirError(f"the image is damaged: inode {number} is impossibly long")
        has_extra = self.ext.inode_bytes > 128 and extra_bytes >= 12
        # Two bits of epoch, thirty of nanoseconds (inodes.rst, "Inode Timestamps").
        mtime_s, mtime_ns = mtime + ((mtime_extra & 3) << 32), mtime_extra >> 2
        return Inode(
            number=number,
            mode=mode,
            uid=uid_low + (uid_high << 16),
            gid=gid_low + (gid_high << 16),
            size_bytes=size_bytes,
            mtime_ns=mtime_s * 10**9 + mtime_ns if has_extra else mtime * 10**9,
            flags=flags,
            map=data[40:100],
        )

    def _inode_offset(self, number: int) -> int:
        if not 0 < number <= self.ext.inodes:
            raise ConstruirError(f"the image is damaged: there is no inode {number}")
        group, index = divmod(number - 1, self.ext.inodes_per_group)
        return self._table_block(group) * self.ext.block_bytes + index * self.ext.inode_bytes

    def _table_block(self, group: int) -> int:
        """First block of a group's inode table, from its descriptor; those follow the superblock's block."""
        ext = self.ext
        offset = (superblock.EXT_OFFSET // ext.block_bytes + 1) * ext.block_bytes + group * ext.descriptor_bytes
        data = self._pread(ext.descriptor_bytes, offset).ljust(64, b"\0")
        low, high = struct.unpack_from("<8xI28xI", data)
        block = int(low + (high << 32 if ext.is_64bit else 0))
        table_blocks = -(-ext.inodes_per_group * ext.inode_bytes // ext.block_bytes)
        if not 0 < block <= ext.blocks - table_blocks:
            raise ConstruirError(f"the image is damaged: the inodes of group {group} are not in it")
        return block

    def give_to_root(self) -> None:
        """Make every inode belong to user 0 and group 0 (inodes.rst, i_uid to l_i_gid_high: four fields of 16 bits)."""

        def give(table: bytearray, start: int) -> None:
            for field in (0x02, 0x18, 0x78, 0x7A):
                struct.pack_into("<H", table, start + field, 0)

        self._edit_inodes(give)

    def settle_times(self, seconds: int, *, modified_too: bool = False) -> None:
        """Of every inode in use: accessed, changed and created at `seconds` since the Epoch, a time before 2038; when
        its content was modified stays, unless `modified_too`. mke2fs -d copies what of this nobody can set, such as
        i_ctime.
        """
        # i_atime, i_ctime, i_crtime, i_mtime; and their nanoseconds with bits of the epoch.
        fields = (0x08, 0x0C, 0x90, *((0x10,) if modified_too else ()))
        extra_fields = (0x84, 0x8C, 0x94, *((0x88,) if modified_too else ()))

        def settle(table: bytearray, start: int) -> None:
            if any(table[start : start + 2]):  # i_mode
                for field in fields:
                    struct.pack_into("<I", table, start + field, seconds)
                for field in extra_fields:
                    struct.pack_into("<I", table, start + field, 0)

        if self.ext.inode_bytes < _WIDE_INODE_BYTES:
            raise ConstruirError("the times of inodes as short as these are not to be settled")
        self._edit_inodes(settle)

    def set_permissions(self, inode: Inode, mode: int) -> None:
        """Give an inode the lower twelve bits of i_mode. Only for an image without metadata check sums."""
        self._pwrite(struct.pack("<H", inode.kind | mode & 0o7777), self._inode_offset(inode.number))

    def _edit_inodes(self, edit: Callable[[bytearray, int], None]) -> None:
        """Call edit(table, offset) for every inode. Only for an image without metadata check sums, open for writing."""
        ext, table_bytes = self.ext, self.ext.inodes_per_group * self.ext.inode_bytes
        for group in range(ext.groups):
            offset = self._table_block(group) * ext.block_bytes
            used = self._pread(table_bytes, offset).rstrip(b"\0")
            table = bytearray(used.ljust(-(-len(used) // ext.inode_bytes) * ext.inode_bytes, b"\0"))
            for start in range(0, len(table), ext.inode_bytes):
                edit(table, start)
            self._pwrite(bytes(table), offset)

    # -- content -----------------------------------------------------------------------------------------

    def content(self, inode: Inode) -> Iterator[tuple[int, bytes]]:
        """What is in a file or directory: (offset in bytes, data), holes left out, in pieces of 1 MiB at most."""
        block_bytes = self.ext.block_bytes
        for first, place, count in self._runs(inode):
            for skip in range(0, count, _READ_BLOCKS):
                offset = (first + skip) * block_bytes
                wanted = min(min(_READ_BLOCKS, count - skip) * block_bytes, inode.size_bytes - offset)
                if wanted > 0:
                    yield offset, self._read(place + skip, wanted)

    def stream(self, inode: Inode) -> Iterator[bytes]:
        """All that is in a file, from beginning to end; holes, of which there may be terabytes, are zeros."""
        at = 0
        piece = _READ_BLOCKS * self.ext.block_bytes
        for offset, data in chain(self.content(inode), [(inode.size_bytes, b"")]):
            if offset < at:
                raise ConstruirError(f"the image is damaged: the blocks of inode {inode.number} are in no order")
            for hole in range(at, offset, piece):
                yield bytes(min(piece, offset - hole))
            yield data
            at = offset + len(data)

    def link_target(self, inode: Inode) -> bytes:
        """Where a symbolic link points; short ones are kept in the inode itself."""
        if inode.size_bytes < _FAST_LINK_BYTES and not inode.flags & _FLAG_EXTENTS:
            return inode.map[: inode.size_bytes]
        if inode.size_bytes >= self.ext.block_bytes:
            raise ConstruirError(f"the image is damaged: the symbolic link in inode {inode.number} has no end")
        return b"".join(data for _, data in self.content(inode))

    def entries(self, inode: Inode) -> Iterator[tuple[bytes, int]]:
        """Name and inode number of what is in a directory, except `.` and `..`; a name is any bytes at all."""
        for _, data in self.content(inode):
            for start in range(0, len(data), self.ext.block_bytes):
                yield from _entries(data[start : start + self.ext.block_bytes])

    def _read(self, block: int, size_bytes: int) -> bytes:
        data = self._pread(size_bytes, block * self.ext.block_bytes)
        if len(data) != size_bytes:
            raise ConstruirError("the image is cut short")
        return data

    def _spend(self, block: int, count: int) -> None:
        """Before any block is read: it is in the image, and the image has as many blocks as were read from it."""
        self._unread_blocks -= count
        if not 0 < block <= self.ext.blocks - count or self._unread_blocks < 0:
            raise ConstruirError("the image is damaged: files lie outside of it, or share their blocks")

    # -- where a file's blocks are -------------------------------------------------------------------------

    def _runs(self, inode: Inode) -> Iterator[Run]:
        if inode.flags & (_FLAG_ENCRYPTED | _FLAG_INLINE_DATA):
            raise ConstruirError(f"inode {inode.number} is encrypted or has inline_data: not readable without mounting")
        runs = self._extents(inode.map, _EXTENT_DEPTH) if inode.flags & _FLAG_EXTENTS else self._mapped(inode.map)
        for first, place, count in runs:
            self._spend(place, count)
            yield first, place, count

    def _extents(self, node: bytes, depth: int) -> Iterator[Run]:
        magic, used, _, level = struct.unpack_from("<HHHH", node)
        if magic != _EXTENT_MAGIC or level > depth or 12 * (used + 1) > len(node):
            raise ConstruirError("the image is damaged: an extent tree makes no sense")
        for entry in range(12, 12 * (used + 1), 12):
            if level:
                _, low, high = struct.unpack_from("<IIH", node, entry)
                yield from self._extents(self._pointed_at(low + (high << 32)), level - 1)
            else:
                first, count, high, low = struct.unpack_from("<IHHI", node, entry)
                if count <= _EXTENT_BLOCKS:
                    yield first, low + (high << 32), count

    def _pointed_at(self, block: int) -> bytes:
        self._spend(block, 1)
        return self._read(block, self.ext.block_bytes)

    def _mapped(self, block_map: bytes) -> Iterator[Run]:
        """Twelve blocks, then one of pointers, one of pointers to those, and one more level (ifork.rst)."""
        per_block = self.ext.block_bytes // 4
        pointers = struct.unpack("<15I", block_map)
        yield from _joined(0, pointers[:12])
        first = 12
        for level, pointer in enumerate(pointers[12:], 1):
            yield from self._indirect(pointer, first, level)
            first += per_block**level

    def _indirect(self, pointer: int, first: int, level: int) -> Iterator[Run]:
        if not pointer:
            return
        per_block = self.ext.block_bytes // 4
        pointers = struct.unpack(f"<{per_block}I", self._pointed_at(pointer))
        if level == 1:
            yield from _joined(first, pointers)
            return
        for index, below in enumerate(pointers):
            yield from self._indirect(below, first + index * per_block ** (level - 1), level - 1)


def _joined(first: int, pointers: tuple[int, ...]) -> Iterator[Run]:
    """Pointers to blocks that follow each other, as runs; 0 is a hole."""
    start = 0
    for end in range(1, len(pointers) + 1):
        if end == len(pointers) or pointers[end] != pointers[start] + (end - start) or not pointers[start]:
            if pointers[start]:
                yield first + start, pointers[start], end - start
            start = end


def _entries(block: bytes) -> Iterator[tuple[bytes, int]]:
    """One block of a directory. Inode 0 is an unused entry, a check sum, or hides the index of a large directory."""
    start = 0
    while start < len(block):
        if len(block) - start < 8:
            raise ConstruirError("the image is damaged: a directory ends within an entry")
        number, length, name_length = struct.unpack_from("<IHB", block, start)
        if length < 8 + name_length or length % 4 or start + length > len(block):
            raise ConstruirError("the image is damaged: a directory makes no sense")
        name = block[start + 8 : start + 8 + name_length]
        if number and name not in (b".", b".."):
            yield name, number
        start += length
