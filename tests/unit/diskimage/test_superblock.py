import struct
from pathlib import Path

import pytest

from construir_ftp.diskimage import superblock
from construir_ftp.errors import RefusedError
from tests.support import images
from tests.support.images import MIB

# Where an ext superblock keeps what is changed below (ext4/super.rst), its own 1024 bytes included.
INODES, BLOCKS, FREE_BLOCKS, FIRST_BLOCK, LOG_BLOCK, LOG_CLUSTER = 1024, 1028, 1036, 1044, 1048, 1052
BLOCKS_PER_GROUP, CLUSTERS_PER_GROUP, INODES_PER_GROUP, REVISION = 1056, 1060, 1064, 1100
COMPAT, INCOMPAT, RO_COMPAT, JOURNAL_INODE, JOURNAL_DEVICE = 1116, 1120, 1124, 1248, 1252
FIRST_META_GROUP = 1284
STATE, INODE_BYTES, DESCRIPTOR_BYTES = 1082, 1112, 1278


def head(data: bytes) -> bytes:
    return data[: superblock.HEAD_BYTES]


@pytest.mark.parametrize("filesystem", ["ext2", "ext3", "ext4"])
@pytest.mark.parametrize("block", ["1024", "2048", "4096"])
def test_kind_and_size_of_what_mke2fs_makes(filesystem: str, block: str) -> None:
    volume = superblock.read(head(images.image(filesystem, 16 * MIB, "-b", block)))
    assert volume is not None
    assert (volume.filesystem, volume.size_bytes, volume.block_bytes) == (filesystem, 16 * MIB, int(block))


@pytest.mark.parametrize(
    "options",
    [
        ("-I", "128"),
        ("-r", "0"),
        ("-O", "^64bit"),
        ("-O", "meta_bg,^resize_inode"),
        ("-O", "bigalloc", "-C", "16384"),
        ("-O", "inline_data"),
        ("-O", "casefold"),
        ("-g", "1024", "-b", "1024"),
        ("-N", "40000"),
    ],
)
def test_unusual_but_mountable_images_are_read(options: tuple[str, ...]) -> None:
    filesystem = "ext2" if options[0] == "-r" else "ext4"
    volume = superblock.read(head(images.image(filesystem, 32 * MIB, *options)))
    assert volume is not None
    assert volume.size_bytes == 32 * MIB


def test_an_image_shorter_than_the_head_is_read() -> None:
    data = images.image("ext2", 66 * 1024, "-N", "16", "-O", "none")
    assert len(data) < superblock.HEAD_BYTES
    volume = superblock.read(data)
    assert volume is not None
    assert volume.size_bytes == len(data)


def test_a_size_beyond_32_bits_of_blocks_is_read_whole() -> None:
    data = head(images.image("ext4", 64 * MIB, "-O", "64bit", "-b", "4096"))
    groups = (2**34) // images.field(data, BLOCKS_PER_GROUP)
    inodes_per_group = 2048
    vast = images.with_fields(
        data, {BLOCKS: 0, 0x550: 4, INODES: groups * inodes_per_group, INODES_PER_GROUP: inodes_per_group}
    )
    volume = superblock.read(vast)
    assert volume is not None
    assert volume.size_bytes == 2**34 * 4096


@pytest.mark.parametrize("data", [b"", b"x" * 100, bytes(2048), bytes(superblock.HEAD_BYTES), images.noise(69_632)])
def test_what_has_no_superblock_is_no_file_system(data: bytes) -> None:
    assert superblock.read(data) is None


def test_a_magic_number_among_zeros_is_not_a_file_system() -> None:
    with pytest.raises(RefusedError, match="makes no sense"):
        superblock.read(head(images.only_magic()))


@pytest.mark.parametrize(
    ("what", "fields"),
    [
        ("block size", {LOG_BLOCK: 7}),
        ("block size", {LOG_BLOCK: 0xFFFFFFFF, LOG_CLUSTER: 0xFFFFFFFF}),
        ("cluster size", {LOG_CLUSTER: 0xFFFFFFFF}),
        ("cluster size", {LOG_CLUSTER: 5}),
        ("revision", {REVISION: 2}),
        ("first data block", {FIRST_BLOCK: 2}),
        ("first data block", {BLOCKS: 0}),
        ("clusters per group", {CLUSTERS_PER_GROUP: 0}),
        ("clusters per group", {CLUSTERS_PER_GROUP: 0xFFFFFFFF}),
        ("blocks per group", {BLOCKS_PER_GROUP: 0}),
        ("blocks per group", {BLOCKS_PER_GROUP: 8}),
        ("inodes per group", {INODES_PER_GROUP: 0}),
        ("inodes per group", {INODES_PER_GROUP: 0xFFFFFFFF}),
        ("inode count", {INODES: 0}),
        ("inode count", {INODES: 12}),
    ],
)
def test_a_superblock_that_contradicts_itself_is_refused(what: str, fields: dict[int, int]) -> None:
    with pytest.raises(RefusedError, match=rf"superblock makes no sense \({what}\)"):
        superblock.read(images.with_fields(head(images.image()), fields))


def test_a_count_of_free_blocks_that_the_kernel_makes_anew_is_not_looked_at() -> None:
    assert superblock.read(images.with_fields(head(images.image()), {FREE_BLOCKS: 0xFFFFFFFF})) is not None


@pytest.mark.parametrize("size", [0, 127, 129, 192, 8192])
def test_an_impossible_inode_size_is_refused(size: int) -> None:
    with pytest.raises(RefusedError, match="inode size"):
        superblock.read(images.with_fields(head(images.image()), {INODE_BYTES: size}, "<H"))


@pytest.mark.parametrize("size", [0, 32, 65, 2048])
def test_an_impossible_descriptor_size_is_refused(size: int) -> None:
    data = head(images.image("ext4", 8 * MIB, "-O", "64bit"))
    with pytest.raises(RefusedError, match="descriptor size"):
        superblock.read(images.with_fields(data, {DESCRIPTOR_BYTES: size}, "<H"))


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("is an ext journal", {INCOMPAT: 0x8}),
        ("journal is on another device", {JOURNAL_DEVICE: 0x801}),
        ("journal is on another device", {JOURNAL_INODE: 0}),
        ("can't write to an ext with the feature compression; make", {INCOMPAT: 0x1}),
        ("can't write to an ext with the feature read-only; make", {RO_COMPAT: 0x1000}),
        ("with the feature number 31 of ro_compat; make", {RO_COMPAT: 0x80000000}),
        ("dirdata, number 20 of incompat, shared_blocks; make", {INCOMPAT: 0x101002, RO_COMPAT: 0x4003}),
        ("first group of meta_bg", {INCOMPAT: 0x12, FIRST_META_GROUP: 2}),
    ],
)
def test_what_the_machine_would_not_mount_is_refused(reason: str, fields: dict[int, int]) -> None:
    with pytest.raises(RefusedError, match=reason):
        superblock.read(images.with_fields(head(images.image("ext3", 8 * MIB)), fields))


def test_blocks_larger_than_a_page_are_refused() -> None:
    with pytest.raises(RefusedError, match=r"blocks of 16384 bytes can't be mounted; make the image with 4096"):
        superblock.read(head(images.image("ext4", 64 * MIB, "-b", "16384")))


def test_a_journal_to_be_replayed_is_told() -> None:
    data = head(images.image("ext4", 8 * MIB))
    unclean = images.with_fields(data, {INCOMPAT: images.field(data, INCOMPAT) | 0x4})
    assert superblock.read(unclean) == superblock.read(data)
    ext = superblock.read_ext(unclean)
    assert ext is not None
    assert ext.needs_recovery
    assert ext.needs_repair


def made_by(tmp_path: Path, size: int, *argv: str) -> bytes:
    path = images.sparse(tmp_path / "image", b"", size)
    images.run(*argv, path)
    with path.open("rb") as file:
        return file.read(superblock.HEAD_BYTES)


def test_kind_and_size_of_what_mkfs_btrfs_makes(tmp_path: Path) -> None:
    volume = superblock.read(made_by(tmp_path, 128 * MIB, "mkfs.btrfs", "-q"))
    assert volume == superblock.Volume(filesystem="btrfs", blocks=128 * 256, block_bytes=4096)


def test_kind_and_size_of_what_mkfs_xfs_makes(tmp_path: Path) -> None:
    volume = superblock.read(made_by(tmp_path, 320 * MIB, "mkfs.xfs", "-q"))
    assert volume == superblock.Volume(filesystem="xfs", blocks=320 * 256, block_bytes=4096)


def test_a_magic_number_alone_is_no_btrfs_or_xfs() -> None:
    for data in (b"XFSB".ljust(4096, b"\0"), bytes(65600) + b"_BHRfS_M".ljust(4032, b"\0")):
        with pytest.raises(RefusedError, match="makes no sense"):
            superblock.read(data)


def test_a_btrfs_of_several_devices_is_refused(tmp_path: Path) -> None:
    data = bytearray(made_by(tmp_path, 128 * MIB, "mkfs.btrfs", "-q"))
    struct.pack_into("<Q", data, 65536 + 0x88, 2)
    with pytest.raises(RefusedError, match="number of devices"):
        superblock.read(bytes(data))


def test_an_xfs_with_its_log_elsewhere_is_refused(tmp_path: Path) -> None:
    data = bytearray(made_by(tmp_path, 320 * MIB, "mkfs.xfs", "-q"))
    struct.pack_into(">Q", data, 48, 0)
    with pytest.raises(RefusedError, match="on another device"):
        superblock.read(bytes(data))
