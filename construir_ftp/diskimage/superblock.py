"""What a file system says of itself: its kind, its size and, for ext2/3/4, where things are.

Reads the first 69,632 bytes of an image and believes them only as far as they make sense together: a magic
number alone is not a file system. What the worker's kernel would not mount read-write is refused here, before
anyone waits for it; a journal to be replayed, or errors noted by an earlier mount, are the kernel's to deal with.

Sources: Linux, Documentation/filesystems/ext4/super.rst and __ext4_fill_super in fs/ext4/super.c;
struct btrfs_super_block in uapi/linux/btrfs_tree.h; struct xfs_dsb in fs/xfs/libxfs/xfs_format.h.
"""

import struct
from collections.abc import Mapping
from typing import Any

import msgspec

from construir_ftp.errors import RefusedError

# The btrfs superblock, the farthest of the three, ends here.
HEAD_BYTES = 65_536 + 4_096
# A block bigger than the processor's page can't be mounted.
MAX_BLOCK_BYTES = 4_096

EXT_OFFSET = 1_024
_EXT_MAGIC = (EXT_OFFSET + 0x38, b"\x53\xef")
_EXT_FIELDS = {
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
    "dynamic_inode_bytes": ("<H", 0x58),
    "compat": ("<I", 0x5C),
    "incompat": ("<I", 0x60),
    "ro_compat": ("<I", 0x64),
    "journal_inode": ("<I", 0xE0),
    "journal_device": ("<I", 0xE4),
    "wide_descriptor_bytes": ("<H", 0xFE),
    "blocks_high": ("<I", 0x150),
    "free_blocks_high": ("<I", 0x158),
}

_COMPAT_HAS_JOURNAL = 0x4
_INCOMPAT_RECOVER = 0x4
_INCOMPAT_JOURNAL_DEVICE = 0x8
_INCOMPAT_64BIT = 0x80
_RO_COMPAT_BIGALLOC = 0x200
# What ext2 and ext3 may have: filetype, recover, meta_bg; sparse_super, large_file, btree_dir. More makes it ext4.
_INCOMPAT_EXT3 = 0x2 | 0x4 | 0x10
_RO_COMPAT_EXT3 = 0x1 | 0x2 | 0x4
# extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, largedir, inline_data, encrypt, casefold.
_INCOMPAT_EXT4 = _INCOMPAT_EXT3 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x20000
# huge_file, gdt_csum, dir_nlink, extra_isize, quota, bigalloc, metadata_csum, project, verity, orphan_present.
_RO_COMPAT_EXT4 = _RO_COMPAT_EXT3 | 0x8 | 0x10 | 0x20 | 0x40 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x8000 | 0x10000
_STATE_CLEAN = 0x1


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """A file system as its superblock has it."""

    filesystem: str
    blocks: int
    block_bytes: int

    @property
    def size_bytes(self) -> int:
        """Length of the image, which may be followed by less than one block more."""
        return self.blocks * self.block_bytes


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
    dynamic_inode_bytes: int
    compat: int
    incompat: int
    ro_compat: int
    journal_inode: int
    journal_device: int
    wide_descriptor_bytes: int
    blocks_high: int
    free_blocks_high: int

    @property
    def is_64bit(self) -> bool:
        """Whether block numbers, and so group descriptors, are wide."""
        return bool(self.incompat & _INCOMPAT_64BIT)

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
    def descriptor_bytes(self) -> int:
        """Length of a group descriptor."""
        return self.wide_descriptor_bytes if self.is_64bit else 32

    @property
    def groups(self) -> int:
        """Block groups, the last of which may be short."""
        return -(-(self.blocks - self.first_block) // self.blocks_per_group)

    @property
    def filesystem(self) -> str:
        """ext2, ext3 or ext4, told apart by features as blkid(8) does."""
        if self.incompat & ~_INCOMPAT_EXT3 or self.ro_compat & ~_RO_COMPAT_EXT3:
            return "ext4"
        return "ext3" if self.compat & _COMPAT_HAS_JOURNAL else "ext2"

    @property
    def needs_repair(self) -> bool:
        """Whether it was not unmounted: its journal waits to be replayed, or it was in use and has none."""
        return bool(self.incompat & _INCOMPAT_RECOVER) or not self.state & _STATE_CLEAN


def read(head: bytes) -> Volume | None:
    """The file system an image begins with; None if there is none.

    `head` is the image's first HEAD_BYTES, or all of it. Raises RefusedError if there is a superblock
    that contradicts itself, or one the worker's kernel does not mount.
    """
    return _read_ext(head) or _read_btrfs(head) or _read_xfs(head)


def _unpack(fields: Mapping[str, tuple[str, int]], data: bytes, offset: int) -> dict[str, Any]:
    return {name: struct.unpack_from(kind, data, offset + place)[0] for name, (kind, place) in fields.items()}


def _has(head: bytes, offset: int, magic: bytes) -> bool:
    return head[offset : offset + len(magic)] == magic


def _require(filesystem: str, sense: Mapping[str, bool]) -> None:
    wrong = [what for what, sound in sense.items() if not sound]
    if wrong:
        raise RefusedError(f"the {filesystem} superblock makes no sense ({wrong[0]}); make the image anew")


def _require_mountable_block(filesystem: str, block_bytes: int) -> None:
    if block_bytes > MAX_BLOCK_BYTES:
        raise RefusedError(
            f"{filesystem} with blocks of {block_bytes} bytes can't be mounted; make the image with {MAX_BLOCK_BYTES}"
        )


def _is_power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0


# -- ext2, ext3, ext4 ----------------------------------------------------------------------------------


def read_ext(head: bytes) -> Ext | None:
    """The ext superblock in an image's head, None if there is none. Raises RefusedError like read()."""
    if not _has(head, *_EXT_MAGIC) or len(head) < 2 * EXT_OFFSET:
        return None
    ext = Ext(**_unpack(_EXT_FIELDS, head, EXT_OFFSET))
    # First, because what follows shifts by these.
    _require("ext", {"block size": ext.log_block <= 6, "cluster size": ext.log_block <= ext.log_cluster <= 20})
    _require("ext", _ext_sense(ext))
    _require_ext_mountable(ext)
    return ext


def _read_ext(head: bytes) -> Volume | None:
    ext = read_ext(head)
    if ext is None:
        return None
    return Volume(filesystem=ext.filesystem, blocks=ext.blocks, block_bytes=ext.block_bytes)


def _ext_sense(ext: Ext) -> dict[str, bool]:
    """What fs/ext4/super.c holds against a superblock before it mounts; what is false is wrong."""
    bits = 8 * ext.block_bytes  # a group's bitmap is one block
    blocks_per_cluster = 1 << (ext.log_cluster - ext.log_block)
    first_block = 1 if ext.log_cluster == 0 else 0  # the boot block has 1 KiB, and no larger block to hide in
    inode_bytes = ext.inode_bytes
    return {
        "revision": ext.revision == 1 or (ext.revision == 0 and not ext.compat | ext.incompat | ext.ro_compat),
        "cluster size": blocks_per_cluster == 1 or bool(ext.ro_compat & _RO_COMPAT_BIGALLOC),
        "first data block": ext.first_block == first_block < ext.blocks,
        "clusters per group": 0 < ext.clusters_per_group <= bits,
        "blocks per group": ext.blocks_per_group == ext.clusters_per_group * blocks_per_cluster > 0,
        "inode size": _is_power_of_two(inode_bytes) and 128 <= inode_bytes <= ext.block_bytes,
        "inodes per group": inode_bytes > 0 and ext.block_bytes // inode_bytes <= ext.inodes_per_group <= bits,
        "inode count": ext.inodes > 0 and ext.blocks_per_group > 0 and ext.inodes == ext.groups * ext.inodes_per_group,
        "descriptor size": not ext.is_64bit
        or (_is_power_of_two(ext.descriptor_bytes) and 64 <= ext.descriptor_bytes <= 1024),
        "free blocks": ext.free_blocks < ext.blocks,
    }


def _require_ext_mountable(ext: Ext) -> None:
    if ext.incompat & _INCOMPAT_JOURNAL_DEVICE:
        raise RefusedError("this is an ext journal, not a file system; make an image with: construir pack DIR")
    if ext.compat & _COMPAT_HAS_JOURNAL and (ext.journal_device or not ext.journal_inode):
        raise RefusedError("the image's journal is on another device; take it off with: tune2fs -O ^has_journal IMAGE")
    unknown = ext.incompat & ~_INCOMPAT_EXT4, ext.ro_compat & ~_RO_COMPAT_EXT4
    if any(unknown):
        raise RefusedError(
            f"the image has ext features the machine can't write to (incompat {unknown[0]:#x},"
            f" ro_compat {unknown[1]:#x}); make it without them"
        )
    _require_mountable_block(ext.filesystem, ext.block_bytes)


# -- btrfs -----------------------------------------------------------------------------------------------

_BTRFS_OFFSET = 65_536
_BTRFS_MAGIC = (_BTRFS_OFFSET + 0x40, b"_BHRfS_M")
_BTRFS_FIELDS = {
    "own_offset": ("<Q", 0x30),
    "generation": ("<Q", 0x48),
    "root": ("<Q", 0x50),
    "total_bytes": ("<Q", 0x70),
    "used_bytes": ("<Q", 0x78),
    "devices": ("<Q", 0x88),
    "sector_bytes": ("<I", 0x90),
    "node_bytes": ("<I", 0x94),
    "device_bytes": ("<Q", 0xC9 + 8),
}


def _read_btrfs(head: bytes) -> Volume | None:
    if not _has(head, *_BTRFS_MAGIC) or len(head) < HEAD_BYTES:
        return None
    has = _unpack(_BTRFS_FIELDS, head, _BTRFS_OFFSET)
    sector_bytes = has["sector_bytes"]
    sector_is_sound = _is_power_of_two(sector_bytes) and 4_096 <= sector_bytes <= 65_536
    _require(
        "btrfs",
        {
            "position": has["own_offset"] == _BTRFS_OFFSET,
            "generation": has["generation"] > 0,
            "root": has["root"] > 0 and has["root"] % 4_096 == 0,
            "number of devices": has["devices"] == 1,
            "size": has["total_bytes"] == has["device_bytes"] > 0,
            "used bytes": has["used_bytes"] <= has["total_bytes"],
            "sector size": sector_is_sound and has["total_bytes"] % sector_bytes == 0,
            "node size": _is_power_of_two(has["node_bytes"]) and sector_bytes <= has["node_bytes"] <= 65_536,
        },
    )
    _require_mountable_block("btrfs", sector_bytes)
    return Volume(filesystem="btrfs", blocks=has["total_bytes"] // sector_bytes, block_bytes=sector_bytes)


# -- xfs -------------------------------------------------------------------------------------------------

_XFS_FIELDS = {
    "block_bytes": (">I", 4),
    "blocks": (">Q", 8),
    "realtime_blocks": (">Q", 16),
    "log_start": (">Q", 48),
    "root_inode": (">Q", 56),
    "group_blocks": (">I", 84),
    "groups": (">I", 88),
    "sector_bytes": (">H", 102),
    "inode_bytes": (">H", 104),
    "log_block": (">B", 120),
    "in_progress": (">B", 126),
}


def _read_xfs(head: bytes) -> Volume | None:
    if not _has(head, 0, b"XFSB") or len(head) < 512:
        return None
    has = _unpack(_XFS_FIELDS, head, 0)
    blocks, groups, group_blocks = has["blocks"], has["groups"], has["group_blocks"]
    _require(
        "xfs",
        {
            "block size": 9 <= has["log_block"] <= 16 and has["block_bytes"] == 1 << has["log_block"],
            "groups": groups > 0 and (groups - 1) * group_blocks < blocks <= groups * group_blocks,
            "root inode": has["root_inode"] > 0,
            "sector size": _is_power_of_two(has["sector_bytes"]) and 512 <= has["sector_bytes"] <= has["block_bytes"],
            "inode size": _is_power_of_two(has["inode_bytes"]) and 256 <= has["inode_bytes"] <= 2_048,
            "unfinished mkfs": has["in_progress"] == 0,
        },
    )
    if has["realtime_blocks"] or not has["log_start"]:
        raise RefusedError("the xfs has its log or a realtime section on another device; make it in one image")
    _require_mountable_block("xfs", has["block_bytes"])
    return Volume(filesystem="xfs", blocks=blocks, block_bytes=has["block_bytes"])
