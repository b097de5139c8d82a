"""The features of ext2, ext3 and ext4 by their names, and which of them the machine's kernel mounts to write to.

docs/intake.md has a row for each. A feature of the first set that a kernel does not know is ignored by it; one of the
second keeps it from mounting, one of the third from writing.

Sources: Linux, Documentation/filesystems/ext4/super.rst, EXT4_FEATURE_*_SUPP in fs/ext4/ext4.h; the names are ext4(5)'s
and those of lib/e2p/feature.c in e2fsprogs.
"""

from enum import IntFlag


class Compat(IntFlag):
    """s_feature_compat."""

    DIR_PREALLOC = 0x1
    IMAGIC_INODES = 0x2
    HAS_JOURNAL = 0x4
    EXT_ATTR = 0x8
    RESIZE_INODE = 0x10
    DIR_INDEX = 0x20
    LAZY_BG = 0x40
    SNAPSHOT_BITMAP = 0x100
    SPARSE_SUPER2 = 0x200
    FAST_COMMIT = 0x400
    STABLE_INODES = 0x800
    ORPHAN_FILE = 0x1000


class Incompat(IntFlag):
    """s_feature_incompat."""

    COMPRESSION = 0x1
    FILETYPE = 0x2
    NEEDS_RECOVERY = 0x4
    JOURNAL_DEV = 0x8
    META_BG = 0x10
    EXTENT = 0x40
    WIDE = 0x80
    MMP = 0x100
    FLEX_BG = 0x200
    EA_INODE = 0x400
    DIRDATA = 0x1000
    METADATA_CSUM_SEED = 0x2000
    LARGE_DIR = 0x4000
    INLINE_DATA = 0x8000
    ENCRYPT = 0x10000
    CASEFOLD = 0x20000


class RoCompat(IntFlag):
    """s_feature_ro_compat."""

    SPARSE_SUPER = 0x1
    LARGE_FILE = 0x2
    BTREE_DIR = 0x4
    HUGE_FILE = 0x8
    UNINIT_BG = 0x10
    DIR_NLINK = 0x20
    EXTRA_ISIZE = 0x40
    HAS_SNAPSHOT = 0x80
    QUOTA = 0x100
    BIGALLOC = 0x200
    METADATA_CSUM = 0x400
    REPLICA = 0x800
    READ_ONLY = 0x1000
    PROJECT = 0x2000
    SHARED_BLOCKS = 0x4000
    VERITY = 0x8000
    ORPHAN_PRESENT = 0x10000


# What ext2 and ext3 may have; more makes it ext4 (blkid(8)).
INCOMPAT_EXT3 = Incompat.FILETYPE | Incompat.NEEDS_RECOVERY | Incompat.META_BG
RO_COMPAT_EXT3 = RoCompat.SPARSE_SUPER | RoCompat.LARGE_FILE | RoCompat.BTREE_DIR

_INCOMPAT_NOT_MOUNTED = Incompat.COMPRESSION | Incompat.JOURNAL_DEV | Incompat.DIRDATA
_RO_COMPAT_NOT_MOUNTED = (
    RoCompat.HAS_SNAPSHOT | RoCompat.REPLICA | RoCompat.READ_ONLY | RoCompat.SHARED_BLOCKS
)  # fmt: skip
_OTHER_NAMES = {"WIDE": "64bit", "READ_ONLY": "read-only"}


def not_mounted(incompat: int, ro_compat: int) -> list[str]:
    """The names of those that the machine's kernel does not mount, or not to write to; unknown ones by their bit."""
    return [
        *_names(Incompat, incompat, _INCOMPAT_NOT_MOUNTED, "incompat"),
        *_names(RoCompat, ro_compat, _RO_COMPAT_NOT_MOUNTED, "ro_compat"),
    ]


def _names(kind: type[Compat | Incompat | RoCompat], bits: int, not_mounted: int, unknown: str) -> list[str]:
    known = [name_of(feature) for feature in kind if feature & bits & not_mounted]
    others = bits & ~sum(kind)
    return known + [f"number {bit} of {unknown}" for bit in range(32) if others >> bit & 1]


def name_of(feature: Compat | Incompat | RoCompat) -> str:
    """What e2fsprogs calls a feature."""
    assert feature.name is not None
    return _OTHER_NAMES.get(feature.name, feature.name.lower())
