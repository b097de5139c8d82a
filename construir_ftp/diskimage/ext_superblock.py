"""The superblock of an ext2, ext3 or ext4, as it is: its fields, and what follows from them.

Whether they make sense together is for superblock to say, which makes these.

Source: Linux, Documentation/filesystems/ext4/super.rst, whose order the fields are in.
"""

import msgspec

from construir_ftp.diskimage import ext_features
from construir_ftp.diskimage.ext_features import Compat, Incompat, RoCompat

EXT_OFFSET = 1_024
# Name -> kind (struct) and place within the superblock.
FIELDS = {
    "inodes": ("<I", 0x00),
    "blocks_low": ("<I", 0x04),
    "free_blocks_low": ("<I", 0x0C),
    "first_block": ("<I", 0x14),
    "log_block": ("<I", 0x18),
    "log_cluster": ("<I", 0x1C),
    "blocks_per_group": ("<I", 0x20),
    "clusters_per_group": ("<I", 0x24),
    "inodes_per_group": ("<I", 0x28),
    "state": ("<H", 0x3A),
    "revision": ("<I", 0x4C),
    "dynamic_first_inode": ("<I", 0x54),
    "dynamic_inode_bytes": ("<H", 0x58),
    "compat": ("<I", 0x5C),
    "incompat": ("<I", 0x60),
    "ro_compat": ("<I", 0x64),
    "journal_inode": ("<I", 0xE0),
    "journal_device": ("<I", 0xE4),
    "wide_descriptor_bytes": ("<H", 0xFE),
    "first_meta_group": ("<I", 0x104),
    "blocks_high": ("<I", 0x150),
    "free_blocks_high": ("<I", 0x158),
    "first_backup_group": ("<I", 0x24C),
    "second_backup_group": ("<I", 0x250),
    "encoding": ("<H", 0x27C),
}

_STATE_CLEAN = 0x1
_FIRST_INODE = 11


class Ext(msgspec.Struct, frozen=True, kw_only=True):
    """The superblock of an ext2, ext3 or ext4; fields named in the order of super.rst."""

    inodes: int
    blocks_low: int
    free_blocks_low: int
    first_block: int
    log_block: int
    log_cluster: int
    blocks_per_group: int
    clusters_per_group: int
    inodes_per_group: int
    state: int
    revision: int
    dynamic_first_inode: int
    dynamic_inode_bytes: int
    compat: int
    incompat: int
    ro_compat: int
    journal_inode: int
    journal_device: int
    wide_descriptor_bytes: int
    first_meta_group: int
    blocks_high: int
    free_blocks_high: int
    first_backup_group: int
    second_backup_group: int
    encoding: int

    @property
    def is_64bit(self) -> bool:
        """Whether block numbers, and so group descriptors, are wide."""
        return bool(self.incompat & Incompat.WIDE)

    @property
    def blocks(self) -> int:
        """Blocks of the whole file system."""
        return self.blocks_low + (self.blocks_high << 32 if self.is_64bit else 0)

    @property
    def free_blocks(self) -> int:
        """Blocks not in use, as of the last clean unmount."""
        return self.free_blocks_low + (self.free_blocks_high << 32 if self.is_64bit else 0)

    @property
    def block_bytes(self) -> int:
        """Length of a block."""
        return 1024 << self.log_block

    @property
    def inode_bytes(self) -> int:
        """Length of an inode; always 128 in revision 0."""
        return self.dynamic_inode_bytes if self.revision else 128

    @property
    def first_inode(self) -> int:
        """The first inode that a file may have, but for the root directory's; always 11 in revision 0."""
        return self.dynamic_first_inode if self.revision else _FIRST_INODE

    @property
    def descriptor_bytes(self) -> int:
        """Length of a group descriptor."""
        return self.wide_descriptor_bytes if self.is_64bit else 32

    def descriptor_offset(self, group: int) -> int:
        """Where in the image, in bytes, a group's descriptor is (descriptor_loc in fs/ext4/super.c)."""
        per_block = self.block_bytes // self.descriptor_bytes
        number, index = divmod(group, per_block)
        if not self.incompat & Incompat.META_BG or number < self.first_meta_group:
            block = EXT_OFFSET // self.block_bytes + 1 + number
        else:
            first_group = number * per_block
            block = self.first_block + first_group * self.blocks_per_group + self._has_superblock(first_group)
            # Of 1 KiB, with bigalloc: the superblock is in block 1 all the same.
            block += self.block_bytes == EXT_OFFSET and not number and not self.first_block
        return block * self.block_bytes + index * self.descriptor_bytes

    def _has_superblock(self, group: int) -> bool:
        """Whether a group begins with a superblock, or a copy of it (ext4_bg_has_super in fs/ext4/balloc.c)."""
        if not group:
            return True
        if self.compat & Compat.SPARSE_SUPER2:
            return group in (self.first_backup_group, self.second_backup_group)
        if group == 1 or not self.ro_compat & RoCompat.SPARSE_SUPER:
            return True
        return any(_is_power(group, base) for base in (3, 5, 7))

    @property
    def groups(self) -> int:
        """Block groups, the last of which may be short."""
        return -(-(self.blocks - self.first_block) // self.blocks_per_group)

    @property
    def filesystem(self) -> str:
        """ext2, ext3 or ext4, told apart by features as blkid(8) does."""
        if self.incompat & ~ext_features.INCOMPAT_EXT3 or self.ro_compat & ~ext_features.RO_COMPAT_EXT3:
            return "ext4"
        return "ext3" if self.compat & Compat.HAS_JOURNAL else "ext2"

    @property
    def needs_recovery(self) -> bool:
        """Whether its journal waits to be replayed: what is in it is not yet what the machine will find."""
        return bool(self.incompat & Incompat.NEEDS_RECOVERY)

    @property
    def needs_repair(self) -> bool:
        """Whether it was not unmounted: its journal waits to be replayed, or it was in use and has none."""
        return self.needs_recovery or not self.state & _STATE_CLEAN


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1
