"""What differs between two ext images is found without mounting them, whatever kind of thing it is."""

import hashlib
import os
from pathlib import Path

import pytest

from construir_ftp.diskimage import compare
from construir_ftp.errors import ConstruirError
from tests.support import images
from tests.support.images import MIB

EPOCH = 1_700_000_000


def made(tree: Path) -> Path:
    path = tree.with_suffix(".img")
    # Without a date of its own the root directory would have that of the moment.
    images.run("env", f"E2FSPROGS_FAKE_TIME={EPOCH}", "mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, path, "8M")
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with one thing of every kind that needs no root."""
    tree = tmp_path / "old"
    (tree / "directory" / "below").mkdir(parents=True)
    (tree / "directory" / "file").write_text("content\n")
    (tree / "twin").hardlink_to(tree / "directory" / "file")
    (tree / "link").symlink_to("directory/file")
    (tree / "holes").write_bytes(bytes(MIB) + b"x" + bytes(MIB))
    os.mkfifo(tree / "pipe")
    return settled(tree)


def settled(tree: Path) -> Path:
    """All of one time: only what a test does is to differ."""
    for path in (tree, *tree.rglob("*")):
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    return tree


def copied(tree: Path, name: str = "new") -> Path:
    copy = tree.with_name(name)
    images.run("cp", "-a", tree, copy)
    return copy


def test_images_of_the_same_files_do_not_differ(tree: Path) -> None:
    assert compare.compare_images(made(tree), made(copied(tree))) == []


def test_entry_says_kind_mode_owner_size_and_content(tree: Path) -> None:
    tree.joinpath("directory", "file").chmod(0o640)
    found = compare.entries(made(tree))
    file = found[b"/directory/file"]
    assert (file.kind, file.mode, file.size_bytes, file.modified_ns) == ("file", "0640", 8, EPOCH * 10**9)
    assert file.owner == f"{os.geteuid()}:{tree.stat().st_gid}"
    assert file.content == "sha256:" + hashlib.sha256(b"content\n").hexdigest()
    assert found[b"/twin"] == file
    assert found[b"/holes"].content == "sha256:" + hashlib.sha256(bytes(MIB) + b"x" + bytes(MIB)).hexdigest()
    assert (found[b"/link"].kind, found[b"/link"].content) == ("link", "directory/file")
    assert found[b"/pipe"].kind == "pipe"
    assert found[b"/"].kind == "directory"


def test_every_change_is_found_and_named(tree: Path) -> None:
    new = copied(tree)
    (new / "twin").unlink()
    (new / "directory" / "file").write_text("CONTENT\n")
    (new / "directory" / "below").chmod(0o700)
    (new / "link").unlink()
    (new / "link").symlink_to("elsewhere")
    (new / "added").write_text("new\n")
    (new / "pipe").unlink()
    (new / "pipe").mkdir()
    settled(new)
    os.utime(new / "holes", (EPOCH, EPOCH + 1))
    found = {difference.path: difference for difference in compare.compare_images(made(tree), made(new))}
    assert {path: difference.fields() for path, difference in found.items() if difference.old and difference.new} == {
        b"/directory/below": ["mode"],
        b"/directory/file": ["content"],
        b"/holes": ["modified_ns"],
        b"/link": ["size_bytes", "content"],
        b"/pipe": ["kind", "mode"],
    }
    assert [path for path, difference in found.items() if difference.old is None] == [b"/added"]
    assert [path for path, difference in found.items() if difference.new is None] == [b"/twin"]


def test_devices_are_told_by_their_numbers(tree: Path) -> None:
    path = made(tree)
    images.run("debugfs", "-w", "-R", "mknod narrow c 1 3", path)
    images.run("debugfs", "-w", "-R", "mknod wide b 8 1", path)
    # As the kernel writes numbers above 255 (new_encode_dev); debugfs can't.
    for field, number in (("block[0]", 0), ("block[1]", 70000 & 0xFF | 259 << 8 | (70000 & ~0xFF) << 12)):
        images.run("debugfs", "-w", "-R", f"set_inode_field wide {field} {number}", path)
    found = compare.entries(path)
    assert (found[b"/narrow"].kind, found[b"/narrow"].content) == ("character device", "1:3")
    assert (found[b"/wide"].kind, found[b"/wide"].content) == ("block device", "259:70000")


def test_name_that_is_not_text_is_told_apart(tree: Path) -> None:
    new = copied(tree)
    Path(os.fsdecode(os.fsencode(new) + b"/\xff\n")).touch()
    settled(new)
    assert [difference.path for difference in compare.compare_images(made(tree), made(new))] == [b"/\xff\n"]


def test_what_is_no_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("no image")
    with pytest.raises(ConstruirError, match="not an ext2, ext3 or ext4 image"):
        compare.entries(tmp_path / "notes")
