"""The inodes of an ext2, ext3 or ext4 image: where they are, what they say, and some of it changed.

Of an inode nothing is followed here: what is in a file is for extfs.

Sources: Linux, Documentation/filesystems/ext4 (group_descr.rst, inodes.rst).
"""

import stat
import struct
from collections.abc import Callable
from enum import IntFlag
from typing import IO, Protocol, runtime_checkable

import msgspec

from construir_ftp.diskimage import superblock
from construir_ftp.diskimage.ext_features import Incompat
from construir_ftp.errors import ConstruirError

ROOT = 2

# With all of the times' fields (inodes.rst, i_extra_isize).
_WIDE_INODE_BYTES = 256


class Flag(IntFlag):
    """i_flags, as far as they are asked about."""

    ENCRYPTED = 0x800
    EXTENTS = 0x80000
    ATTRIBUTE = 0x200000
    INLINE_DATA = 0x10000000
    CASEFOLD = 0x40000000


@runtime_checkable
class Source(Protocol):
    """An image that is no file, to be read only."""

    def pread(self, size_bytes: int, offset_bytes: int) -> bytes:
        """As pread(2)."""


class Inode(msgspec.Struct, frozen=True):
    """What is known of a file without reading it. `map` is i_block: 60 bytes that lead to its blocks.

    `tail` is what follows the first 128 bytes of an inode that has a file's data in it, and empty for others.
    """

    number: int
    mode: int
    uid: int
    gid: int
    size_bytes: int
    mtime_ns: int
    flags: int
    links: int
    map: bytes
    tail: bytes = b""

    @property
    def kind(self) -> int:
        """S_IFREG, S_IFDIR, S_IFLNK, or something else (inode(7))."""
        return stat.S_IFMT(self.mode)


class Inodes:
    """An open image. Raises ConstruirError where it is none, or damaged."""

    def __init__(self, file: IO[bytes] | Source) -> None:
        self._file = file
        ext = superblock.read_ext(self._pread(superblock.HEAD_BYTES, 0))
        if ext is None:
            raise ConstruirError("not an ext2, ext3 or ext4 image; only those are read without mounting")
        self.ext = ext

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

    def inode(self, number: int) -> Inode:
        """The inode of that number, as directories name it."""
        data = self._pread(self.ext.inode_bytes, self._inode_offset(number)).ljust(256, b"\0")
        mode, uid_low, size_low, mtime, gid_low, links, flags = struct.unpack_from("<HHI8xi4xHH4xI", data)
        size_high, uid_high, gid_high, extra_bytes, mtime_extra = struct.unpack_from("<I8xHH4xH6xI", data, 108)
        is_wide = stat.S_ISREG(mode) or self.ext.incompat & Incompat.LARGE_DIR
        size_bytes = size_low + (size_high << 32 if is_wide else 0)
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
            links=links,
            map=data[40:100],
            tail=data[128 : self.ext.inode_bytes] if flags & Flag.INLINE_DATA else b"",
        )

    def _inode_offset(self, number: int) -> int:
        if not 0 < number <= self.ext.inodes:
            raise ConstruirError(f"the image is damaged: there is no inode {number}")
        group, index = divmod(number - 1, self.ext.inodes_per_group)
        return self._table_block(group) * self.ext.block_bytes + index * self.ext.inode_bytes

    def _table_block(self, group: int) -> int:
        """First block of a group's inode table, from its descriptor."""
        ext = self.ext
        data = self._pread(ext.descriptor_bytes, ext.descriptor_offset(group)).ljust(64, b"\0")
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
