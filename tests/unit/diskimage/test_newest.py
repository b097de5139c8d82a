"""The time of an image's newest file is found while the image comes by, however it is cut, and of files alone."""

import os
import random
from pathlib import Path

import pytest

from construir_ftp.diskimage import extfs
from construir_ftp.diskimage.newest import NewestFile
from construir_ftp.intake.verdict import Verdict
from tests.support import images

OLD, NEWEST, LATER = 1_000_000_000, 1_700_000_123, 1_800_000_000


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of several times; directories and links are newer."""
    tree = tmp_path / "tree"
    for number in range(40):
        path = tree / f"d{number % 5}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * number)
        os.utime(path, (LATER, NEWEST if number == 17 else OLD - number))
    (tree / "link").symlink_to("d1/f1")
    for path in (tree, *tree.iterdir()):
        os.utime(path, (LATER, LATER), follow_symlinks=False)
    return tree


def newest_of(image: Path, seed: int = 0) -> int:
    """Of an image that comes in pieces of any size."""
    cuts, newest, at = random.Random(seed), NewestFile(), 0
    data = image.read_bytes()
    while at < len(data):
        size = cuts.choice((1, 200, 4096, 70_000, 2**20))
        newest.add(data[at : at + size], at)
        at += size
    return newest.seconds


@pytest.mark.parametrize(
    "options",
    [
        ("-t", "ext2"),
        ("-t", "ext2", "-b", "1024", "-I", "128"),
        ("-t", "ext3", "-b", "1024"),
        ("-t", "ext4"),
        ("-t", "ext4", "-b", "1024", "-O", "^flex_bg,64bit"),
        ("-t", "ext4", "-O", "orphan_file,inline_data"),
        ("-t", "ext4", "-b", "1024", "-O", "^resize_inode,sparse_super2,bigalloc"),
    ],
    ids=" ".join,
)
def test_it_is_that_of_files_whatever_the_layout(tree: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    image = tmp_path / "image"
    images.run("mke2fs", "-q", "-F", *options, "-d", tree, image, "40M")
    for seed in range(2):
        assert newest_of(image, seed) == NEWEST
    with image.open("rb") as file:
        number = extfs.Image(file).find(b"d2", b"f17")
    assert number is not None
    images.run("debugfs", "-w", "-R", "rm d2/f17", image)
    assert newest_of(image) == OLD, "a file that was deleted is none"


def test_of_what_is_no_such_file_system_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(random.Random(1).randbytes(300_000))
    assert newest_of(tmp_path / "noise") == 0
    (tmp_path / "short").write_bytes(b"x" * 100)
    assert newest_of(tmp_path / "short") == 0
    images.run("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^resize_inode,meta_bg", tmp_path / "meta", "8M")
    assert newest_of(tmp_path / "meta") == 0


@pytest.mark.long
def test_tables_that_lie_anywhere_end_nothing(tree: Path, tmp_path: Path) -> None:
    """Descriptors, and what they lead to, are as hostile as the rest of an upload."""
    image, noise = tmp_path / "image", random.Random(2)
    images.run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-d", tree, image, "40M")
    whole = image.read_bytes()
    for seed in range(20):
        spoiled = bytearray(whole)
        for _ in range(30):
            spoiled[noise.randrange(2048, 2048 + 6 * 64)] = noise.randrange(256)
        image.write_bytes(spoiled)
        Verdict(
            codec="raw",
            filesystem="ext4",
            upload_bytes=1,
            image_bytes=1,
            upload_sha256="0" * 64,
            newest_s=newest_of(image, seed),
        )
