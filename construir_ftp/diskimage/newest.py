"""When the newest file of an ext2, ext3 or ext4 image was last changed, found out while the image comes by.

Only the tables of inodes are looked into, as they lie in the image: no file, no directory, and nothing a second time.

Sources: Linux, Documentation/filesystems/ext4 (group_descr.rst, inodes.rst).
"""

import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

from construir_ftp.diskimage import superblock
from construir_ftp.diskimage.ext_features import Compat, Incompat
from construir_ftp.diskimage.ext_superblock import Ext

# More than an image has that is made for a job; half a second of a processor's time.
_MOST_GROUPS, _MOST_INODES = 2**16, 2**22
# s_orphan_file_inum (super.rst): a file of the file system's own, with a number like anybody's.
_ORPHANS = struct.Struct("<I"), 1024 + 0x280


class _Table(NamedTuple):
    """Where a group's inodes are, in bytes, and the number of the first."""

    begin: int
    end: int
    first: int


class NewestFile:
    """Of an image that is given block by block, in its order. `seconds` since 1970; 0 where that can't be told."""

    def __init__(self) -> None:
        self.seconds = 0
        self._head = bytearray()
        self._ext: Ext | None = None
        self._own: set[int] = set()
        self._tables: list[_Table] | None = None
        self._at = 0
        self._carry = b""

    def add(self, block: bytes | bytearray, offset_bytes: int) -> None:
        """The next block, and where it begins. Raises RefusedError where the superblock makes no sense."""
        if self._tables is None:
            self._head += block
            if not self._is_head_whole():
                return
            block, offset_bytes = bytes(self._head), 0
            self._head.clear()
        self._look(block, offset_bytes)

    def _is_head_whole(self) -> bool:
        """Whether all descriptors of groups are there, by which the tables are known from now on."""
        if self._ext is None:
            if len(self._head) < superblock.HEAD_BYTES:
                return False
            self._ext = superblock.read_ext(bytes(self._head[: superblock.HEAD_BYTES]))
        ext = self._ext
        if ext is None or not _is_usual(ext):
            self._tables = []
            return True
        if len(self._head) < ext.descriptor_offset(ext.groups - 1) + ext.descriptor_bytes:
            return False
        if ext.compat & Compat.ORPHAN_FILE:
            self._own = {_ORPHANS[0].unpack_from(self._head, _ORPHANS[1])[0]}
        self._tables = list(_in_order(ext, self._head))
        return True

    def _look(self, block: bytes | bytearray, offset_bytes: int) -> None:
        end = offset_bytes + len(block)
        assert self._tables is not None
        while self._at < len(self._tables) and self._tables[self._at].begin < end:
            table = self._tables[self._at]
            first, last = max(table.begin, offset_bytes), min(table.end, end)
            self._scan(table, first, bytes(memoryview(block)[first - offset_bytes : last - offset_bytes]))
            if table.end > end:
                return
            self._at += 1
            self._carry = b""

    def _scan(self, table: _Table, begin: int, data: bytes) -> None:
        """Look at the inodes that are whole by now; the beginning of one more is kept."""
        assert self._ext is not None
        size_bytes = self._ext.inode_bytes
        number = table.first + (begin - len(self._carry) - table.begin) // size_bytes
        data = self._carry + data
        whole_bytes = len(data) - len(data) % size_bytes
        self._carry = data[whole_bytes:]
        if data.count(0) != len(data):
            self._take(data[:whole_bytes], number, size_bytes)

    def _take(self, inodes: bytes, number: int, size_bytes: int) -> None:
        # i_mode, i_mtime, i_links_count
        fields = struct.Struct(f"<H14xi6xH{size_bytes - 28}x")
        assert self._ext is not None
        for at, (mode, changed_s, links) in enumerate(fields.iter_unpack(inodes), number):
            is_file = stat.S_ISREG(mode) and links and at >= self._ext.first_inode and at not in self._own
            if is_file and changed_s > self.seconds:
                self.seconds = changed_s


def _is_usual(ext: Ext) -> bool:
    return ext.groups <= _MOST_GROUPS and ext.inodes <= _MOST_INODES and not ext.incompat & Incompat.META_BG


def _in_order(ext: Ext, head: bytearray) -> Iterator[_Table]:
    """The tables in the order in which they lie; none that overlaps another."""
    table_bytes, end = ext.inodes_per_group * ext.inode_bytes, 0
    found = sorted((_place(ext, head, group), group) for group in range(ext.groups))
    for place, group in found:
        if place >= end:
            end = place + table_bytes
            yield _Table(place, end, group * ext.inodes_per_group + 1)


def _place(ext: Ext, head: bytearray, group: int) -> int:
    at = ext.descriptor_offset(group)
    # bg_inode_table_lo and _hi
    low, high = struct.unpack_from("<8xI28xI", bytes(head[at : at + ext.descriptor_bytes]).ljust(64, b"\0"))
    return int(low + (high << 32 if ext.is_64bit else 0)) * ext.block_bytes
