"""What a file system says of itself: its kind, its size and, for ext2/3/4, where things are.

Reads the first 69,632 bytes of an image and believes them only as far as they make sense together: a magic
number alone is not a file system. What the machine's kernel would not mount read-write is refused here, before
anyone waits for it. Errors noted by an earlier mount are the kernel's to deal with; that a journal waits to be
replayed is told, and whoever reads the files decides.

Sources: Linux, Documentation/filesystems/ext4/super.rst and __ext4_fill_super in fs/ext4/super.c;
struct btrfs_super_block in uapi/linux/btrfs_tree.h; struct xfs_dsb in fs/xfs/libxfs/xfs_format.h.
"""

import struct
from collections.abc import Mapping
from typing import Any

import msgspec

from construir_ftp.diskimage import ext_features
from construir_ftp.diskimage.ext_features import Compat, Incompat, RoCompat
from construir_ftp.diskimage.ext_superblock import EXT_OFFSET, FIELDS, Ext
from construir_ftp.errors import RefusedError

# The btrfs superblock, the farthest of the three, ends here.
HEAD_BYTES = 65_536 + 4_096
# A block bigger than the processor's page can't be mounted.
MAX_BLOCK_BYTES = 4_096

_EXT_MAGIC = (EXT_OFFSET + 0x38, b"\x53\xef")
_UTF8_12_1 = 1
# Of unknown features so many are named.
_MOST_NAMED = 5


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """A file system as its superblock has it."""

    filesystem: str
    blocks: int
    block_bytes: int

    @property
    def size_bytes(self) -> int:
        """Length of the image, which may be followed by less than one block more."""
        return self.blocks * self.block_bytes


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
    ext = Ext(**_unpack(FIELDS, head, EXT_OFFSET))
    # First, because what follows shifts by these.
    _require("ext", {"block size": ext.log_block <= 6, "cluster size": ext.log_block <= ext.log_cluster <= 20})
    # An ext journal has neither inodes nor groups, and what an unknown feature changes is not known.
    _require_ext_mountable(ext)
    _require("ext", _ext_sense(ext))
    _require_mountable_block(ext.filesystem, ext.block_bytes)
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
        "cluster size": blocks_per_cluster == 1 or bool(ext.ro_compat & RoCompat.BIGALLOC),
        "first data block": ext.first_block == first_block < ext.blocks,
        "clusters per group": 0 < ext.clusters_per_group <= bits,
        "blocks per group": ext.blocks_per_group == ext.clusters_per_group * blocks_per_cluster > 0,
        "inode size": _is_power_of_two(inode_bytes) and 128 <= inode_bytes <= ext.block_bytes,
        "inodes per group": inode_bytes > 0 and ext.block_bytes // inode_bytes <= ext.inodes_per_group <= bits,
        "inode count": ext.inodes > 0 and ext.blocks_per_group > 0 and ext.inodes == ext.groups * ext.inodes_per_group,
        "descriptor size": not ext.is_64bit
        or (_is_power_of_two(ext.descriptor_bytes) and 64 <= ext.descriptor_bytes <= 1024),
        "first group of meta_bg": not ext.incompat & Incompat.META_BG or _has_all_before_meta_bg(ext),
        "encoding of casefold": not ext.incompat & Incompat.CASEFOLD or ext.encoding == _UTF8_12_1,
    }


def _has_all_before_meta_bg(ext: Ext) -> bool:
    """Whether there are as many blocks of descriptors as are said to lie where they always do."""
    return ext.blocks_per_group > 0 and ext.first_meta_group * ext.block_bytes < (
        ext.groups * ext.descriptor_bytes + ext.block_bytes
    )


def _require_ext_mountable(ext: Ext) -> None:
    if ext.incompat & Incompat.JOURNAL_DEV:
        raise RefusedError("this is an ext journal, not a file system; make an image with: construir pack DIR")
    if ext.compat & Compat.HAS_JOURNAL and (ext.journal_device or not ext.journal_inode):
        raise RefusedError(
            "the image's journal is on another device; take it off with: /sbin/tune2fs -O ^has_journal IMAGE"
        )
    if names := ext_features.not_mounted(ext.incompat, ext.ro_compat):
        features = ", ".join(names[:_MOST_NAMED])
        raise RefusedError(f"the machine can't write to an ext with the feature {features}; make the image without it")


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
