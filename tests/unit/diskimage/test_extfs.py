import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from construir_ftp.diskimage import extfs
from construir_ftp.errors import ConstruirError
from tests.support import images
from tests.support.images import KIB, MIB


@contextmanager
def opened(path: Path) -> Iterator[extfs.Image]:
    with path.open("rb") as file:
        yield extfs.Image(file)


def made(tmp_path: Path, filesystem: str, size: int, *options: str) -> Path:
    """An image of what is in tmp_path/tree."""
    path = tmp_path / "image"
    images.run("mke2fs", "-q", "-F", "-t", filesystem, *options, "-d", tmp_path / "tree", path, f"{size // KIB}k")
    return path


def content(image: extfs.Image, inode: extfs.Inode) -> bytes:
    data = bytearray(inode.size_bytes)
    for offset, piece in image.content(inode):
        data[offset : offset + len(piece)] = piece
    return bytes(data)


def listed(image: extfs.Image) -> dict[bytes, extfs.Inode]:
    return {name: image.inode(number) for name, number in image.entries(image.inode(extfs.ROOT))}


EVERY_LAYOUT = [
    ("ext2", "-b", "1024"),
    ("ext2", "-b", "4096"),
    ("ext2", "-r", "0"),
    ("ext3", "-b", "1024"),
    ("ext4", "-b", "1024"),
    ("ext4", "-b", "4096", "-O", "^64bit"),
    ("ext4", "-O", "64bit,metadata_csum"),
    ("ext4", "-O", "bigalloc", "-C", "16384"),
    ("ext4", "-O", "^flex_bg,^extents,^64bit"),
]


@pytest.mark.long
@pytest.mark.parametrize("options", EVERY_LAYOUT)
def test_files_are_read_back_from_every_layout(tmp_path: Path, options: tuple[str, ...]) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    expected = {b"empty": b"", b"short": b"short", b"long": images.noise(3 * MIB + 17)}
    for name, data in expected.items():
        (tree / name.decode()).write_bytes(data)
    # Beyond 12 + 256 + 256 * 256 blocks of 1 KiB, all three levels of pointers are in use.
    images.sparse(tree / "holes", b"begin", 70 * MIB)
    with (tree / "holes").open("r+b") as file:
        file.seek(69 * MIB)
        file.write(b"end")
    with opened(made(tmp_path, options[0], 32 * MIB, *options[1:])) as image:
        files = listed(image)
        for name, data in expected.items():
            assert content(image, files[name]) == data
        assert content(image, files[b"holes"]) == (tree / "holes").read_bytes()


@pytest.mark.long
@pytest.mark.parametrize("options", [("ext2",), ("ext4",), ("ext4", "-O", "dir_index", "-b", "1024")])
def test_large_directories_and_strange_names_are_listed_whole(tmp_path: Path, options: tuple[str, ...]) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    names = {f"file {number}" for number in range(2000)} | {
        'qu"ote',
        "new\nline",
        "x" * 255,
        "\u202eslat",
        "-rf",
        "a'b",
    }
    for name in names:
        (tree / name).touch()
    with opened(made(tmp_path, options[0], 16 * MIB, "-N", "4000", *options[1:])) as image:
        assert set(listed(image)) == {name.encode() for name in names} | {b"lost+found"}


def test_links_modes_and_times_are_read(tmp_path: Path) -> None:
    tree = images.job_directory(tmp_path / "tree")
    (tree / "run.sh").chmod(0o4711)
    (tree / "short").symlink_to("run.sh")
    (tree / "long").symlink_to("x" * 300)
    with opened(made(tmp_path, "ext4", 8 * MIB)) as image:
        files = listed(image)
        assert files[b"run.sh"].mode == stat.S_IFREG | 0o4711
        assert files[b"run.sh"].mtime_ns // 10**9 == (tree / "run.sh").stat().st_mtime_ns // 10**9
        assert image.link_target(files[b"short"]) == b"run.sh"
        assert image.link_target(files[b"long"]) == b"x" * 300


def test_blocks_allocated_but_never_written_read_as_zeros(tmp_path: Path) -> None:
    images.job_directory(tmp_path / "tree")
    path = made(tmp_path, "ext4", 8 * MIB)
    images.run("debugfs", "-w", "-R", "fallocate run.sh 1 20", path)
    images.run("debugfs", "-w", "-R", "set_inode_field run.sh size 30000", path)
    with opened(path) as image:
        assert content(image, listed(image)[b"run.sh"]) == images.HELLO.ljust(30000, b"\0")


def test_files_and_directories_in_their_inodes_are_read(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "small").mkdir(parents=True)
    expected = {str(size).encode(): b"x" * size for size in (0, 1, 59, 60, 61, 100, 700, 5000)}
    for name, data in expected.items():
        (tree / name.decode()).write_bytes(data)
    (tree / "small/run.sh").write_text("in a directory")
    (tree / "link").symlink_to("y" * 59)
    (tree / "longer").symlink_to("y" * 90)
    with opened(made(tmp_path, "ext4", 8 * MIB, "-O", "inline_data", "-I", "1024")) as image:
        files = listed(image)
        assert files[b"small"].tail, "the directory is in its inode"
        number = image.lookup(files[b"small"], b"run.sh")
        assert number is not None
        assert list(image.entries(files[b"small"])) == [(b"run.sh", number)]
        assert image.text(image.inode(number)) == b"in a directory"
        for name, data in expected.items():
            assert content(image, files[name]) == data
            image.check(files[name])
            assert b"".join(image.stream(files[name])) == data
        assert image.link_target(files[b"link"]) == b"y" * 59
        assert image.link_target(files[b"longer"]) == b"y" * 90


def test_directory_that_goes_on_in_an_attribute_is_read_whole(tmp_path: Path) -> None:
    tree = images.job_directory(tmp_path / "tree")
    (tree / "small").mkdir()
    (tree / "small/first").touch()
    path, value = made(tmp_path, "ext4", 8 * MIB, "-O", "inline_data", "-I", "512"), tmp_path / "value"
    # An entry as the kernel puts it there: inode, length, length of the name, kind, name; then an unused one.
    value.write_bytes(
        struct.pack("<IHBB8s", 11, 16, 6, 1, b"second") + struct.pack("<IHBB", 0, 36, 0, 0).ljust(36, b"\0")
    )
    images.run("debugfs", "-w", "-R", f"ea_set -f {value} small system.data", path)
    with opened(path) as image:
        small = listed(image)[b"small"]
        assert [name for name, _ in image.entries(small)] == [b"first", b"second"]
        assert image.lookup(small, b"second") == 11


META_BG = ["sparse_super", "^sparse_super", "sparse_super2"]


@pytest.mark.long
@pytest.mark.parametrize("supers", META_BG)
@pytest.mark.parametrize("width", ["64bit", "^64bit"])
def test_descriptors_of_meta_bg_are_found_in_every_group(tmp_path: Path, supers: str, width: str) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    # In 128 groups of 8 inodes; 16 or 32 descriptors are in a block.
    for number in range(700):
        (tree / f"{number:03}").write_text(f"file {number}")
    features = f"meta_bg,^resize_inode,{supers},{width}"
    options = ("-b", "1024", "-g", "256", "-N", "1024", "-I", "128", "-O", features)
    with opened(made(tmp_path, "ext4", 32 * MIB, *options)) as image:
        assert image.ext.groups == 128
        files = listed(image)
        assert max(inode.number for inode in files.values()) > image.ext.inodes_per_group * 64
        for number in range(700):
            assert content(image, files[f"{number:03}".encode()]) == f"file {number}".encode()


def test_descriptors_are_found_after_resize2fs_has_gone_over_to_meta_bg(tmp_path: Path) -> None:
    tree = images.job_directory(tmp_path / "tree")
    for number in range(300):
        (tree / f"{number:03}").write_text(f"file {number}")
    features = "64bit,^resize_inode"
    path = made(tmp_path, "ext4", 4 * MIB, "-b", "1024", "-g", "256", "-N", "512", "-I", "128", "-O", features)
    with path.open("r+b") as file:
        file.truncate(32 * MIB)
    images.run("resize2fs", "-f", path)
    with opened(path) as image:
        files = listed(image)
        for number in range(300):
            assert content(image, files[f"{number:03}".encode()]) == f"file {number}".encode()


@pytest.mark.long
@pytest.mark.parametrize("options", [("ext2", "-b", "1024"), ("ext4", "-b", "1024"), ("ext4", "-O", "inline_data")])
def test_name_is_looked_up_in_directories_of_every_size(tmp_path: Path, options: tuple[str, ...]) -> None:
    tree = images.job_directory(tmp_path / "tree")
    for number in range(3000):
        (tree / f"file {number}").touch()
    with opened(made(tmp_path, options[0], 16 * MIB, "-N", "4000", *options[1:])) as image:
        root = image.inode(extfs.ROOT)
        names = dict(image.entries(root))
        for name in (b"file 0", b"file 1500", b"file 2999", b"run.sh"):
            assert image.lookup(root, name) == names[name]
        assert image.lookup(root, b"file") is None
        assert image.lookup(root, b".") is None


def test_blocks_are_the_same_in_order_and_by_place(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    images.sparse(tree / "holes", b"begin", 70 * MIB)
    with (tree / "holes").open("r+b") as file:
        for place in range(0, 70, 3):
            file.seek(place * MIB)
            file.write(b"piece")
    for options in (("ext2", "-b", "1024"), ("ext4", "-b", "1024")):
        with opened(made(tmp_path, options[0], 32 * MIB, *options[1:])) as image:
            inode = listed(image)[b"holes"]
            assert sorted(image.scattered(inode)) == list(image.content(inode))


def test_give_to_root_changes_owners_and_nothing_else(tmp_path: Path) -> None:
    images.job_directory(tmp_path / "tree")
    path = made(tmp_path, "ext2", 4 * MIB)
    before = images.run("debugfs", "-R", "stat run.sh", path)
    for owner, number in (("uid", 70000), ("gid", 70001)):
        images.run("debugfs", "-w", "-R", f"set_inode_field run.sh {owner} {number}", path)
    assert "70000" in images.run("debugfs", "-R", "stat run.sh", path)
    with path.open("r+b") as file:
        extfs.Image(file).give_to_root()
    after = images.run("debugfs", "-R", "stat run.sh", path)
    assert "User:     0   Group:     0" in after
    assert after.split("Size:")[1] == before.split("Size:")[1]
    images.run("e2fsck", "-fn", path)


def everything(image: extfs.Image) -> int:
    """Read all there is, as unpack does; the number of bytes."""
    found, directories = 0, [image.inode(extfs.ROOT)]
    for directory in directories:
        for _, number in image.entries(directory):
            inode = image.inode(number)
            if inode.kind == stat.S_IFDIR:
                directories.append(inode)
            elif inode.kind == stat.S_IFLNK:
                found += len(image.link_target(inode))
            else:
                found += sum(len(data) for _, data in image.content(inode))
    return found


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    filesystem=st.sampled_from(["ext2", "ext4"]),
    patches=st.lists(
        st.tuples(st.integers(1024, 100 * KIB), st.binary(min_size=1, max_size=8)), min_size=1, max_size=8
    ),
)
def test_a_damaged_image_ends_in_an_error_or_in_bounds(
    tmp_path_factory: pytest.TempPathFactory, filesystem: str, patches: list[tuple[int, bytes]]
) -> None:
    data = bytearray(images.image(filesystem, MIB))
    for place, patch in patches:
        data[place : place + len(patch)] = patch
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data)
    try:
        with opened(path) as image:
            assert everything(image) <= len(data) + 60 * 1024
    except ConstruirError:
        pass
