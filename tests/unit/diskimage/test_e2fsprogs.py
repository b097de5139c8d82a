"""e2fsprogs at work on images: they grow by what is asked, keep what is in them, and nothing else is written to."""

import subprocess
from pathlib import Path

import pytest

from construir_ftp.diskimage import e2fsprogs, extfs
from construir_ftp.errors import ConstruirError
from construir_ftp.pack import pack, unpack
from tests.support import images
from tests.support.images import KIB, MIB


def free_bytes(image: Path) -> int:
    with image.open("rb") as file:
        ext = extfs.Image(file).ext
    return ext.free_blocks * ext.block_bytes


@pytest.mark.parametrize("filesystem", ["ext2", "ext3", "ext4"])
@pytest.mark.parametrize("asked", [1, 30 * MIB, 400 * MIB])
def test_image_grows_until_so_much_is_free_and_is_whole(tmp_path: Path, filesystem: str, asked: int) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(images.image(filesystem, 8 * MIB))
    e2fsprogs.grow(image, asked, 1024 * MIB)
    assert free_bytes(image) >= asked
    assert image.stat().st_size <= max(8 * MIB, 1.1 * asked + 8 * MIB)
    assert image.stat().st_blocks * 512 < 40 * MIB
    images.run("e2fsck", "-fn", image)


@pytest.mark.parametrize("lie", ["free_blocks_count 4000000000", "free_blocks_count 8000", "state 0"])
def test_wrong_count_of_free_blocks_takes_nothing_from_what_was_asked(tmp_path: Path, lie: str) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(images.image("ext2", 8 * MIB))
    images.run("debugfs", "-w", "-R", f"ssv {lie}", image)
    if "8000" in lie:  # of an image that was not unmounted
        images.run("debugfs", "-w", "-R", "ssv state 0", image)
    e2fsprogs.grow(image, 30 * MIB, 1024 * MIB)
    assert free_bytes(image) >= 30 * MIB
    images.run("e2fsck", "-fn", image)


def test_what_pack_made_grows_and_keeps_its_content(tmp_path: Path) -> None:
    packed = tmp_path / "job.img"
    pack.pack(images.job_directory(tmp_path / "job"), packed, 0, "raw")
    e2fsprogs.grow(packed, 300 * MIB, 1024 * MIB)
    assert free_bytes(packed) >= 300 * MIB
    unpack.unpack(packed, tmp_path / "found")
    assert (tmp_path / "found/run.sh").read_bytes() == (tmp_path / "job/run.sh").read_bytes()


@pytest.mark.parametrize("space", [20 * MIB, 300 * MIB])
def test_what_pack_made_for_a_job_that_wants_space_has_inodes_for_it(tmp_path: Path, space: int) -> None:
    job, packed = images.job_directory(tmp_path / "job"), tmp_path / "job.img"
    (job / "construir.toml").write_text(f'space = "{space}B"\n')
    pack.pack(job, packed, 0, "raw")
    assert packed.stat().st_size < 8 * MIB
    e2fsprogs.grow(packed, space, 1024 * MIB)
    told = subprocess.run(["dumpe2fs", "-h", packed], capture_output=True, text=True, check=True).stdout
    free_inodes = int(told.partition("Free inodes:")[2].split()[0])
    assert free_inodes >= space // (16 * KIB)


def test_image_never_grows_beyond_the_limit(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(images.image("ext4", 8 * MIB))
    e2fsprogs.grow(image, 100 * MIB, 50 * MIB)
    assert image.stat().st_size == 50 * MIB


def test_what_is_no_ext_image_does_not_grow(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(images.squashfs())
    with pytest.raises(ConstruirError, match="not an ext2, ext3 or ext4 image"):
        e2fsprogs.grow(image, 100 * MIB, 1024 * MIB)
    assert image.read_bytes() == images.squashfs()
