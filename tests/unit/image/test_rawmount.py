"""base-image/rawmount.sh shows what is in a raw disk: mounted for root, copied for everybody else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from construir_ftp.image import recipe
from tests.support import disks

SCRIPT = recipe.source() / "rawmount.sh"
GREETING = "hello\n"


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """One with a FAT, an ext4, and a partition that holds no file system."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "greeting").write_text(GREETING)
    (tree / "link").symlink_to("greeting")
    nothing = tmp_path / "nothing"
    nothing.write_bytes(bytes(2**20))
    parts = [disks.fat(tmp_path / "fat", tree / "greeting"), nothing, disks.ext(tmp_path / "ext", tree)]
    return disks.partitioned(tmp_path / "disk.img", parts)


def rawmount(
    *arguments: str | Path, copies: bool = True, cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    # The command that is tested, not one that is installed.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
    env = os.environ | {"PATH": path} | ({"RAWMOUNT": "copy"} if copies else {})
    return subprocess.run(
        [SCRIPT, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False, cwd=cwd
    )


def test_copies_are_shown_without_root_and_taken_away_again(disk: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    before = disk.read_bytes()
    shown = rawmount(disk, place)
    assert shown.returncode == 0, shown.stderr
    assert sorted(path.name for path in place.iterdir() if not path.name.startswith(".")) == ["1", "3"]
    assert (place / "1" / "greeting").read_text() == GREETING
    assert (place / "3" / "greeting").read_text() == GREETING
    assert (place / "3" / "link").readlink() == Path("greeting")
    assert rawmount("-u", place).returncode == 0
    assert not place.exists()
    assert disk.read_bytes() == before


@pytest.mark.long
def test_a_directory_that_was_there_before_stays(disk: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    for argument, where in ((place, tmp_path), (Path(), place)):
        assert rawmount(disk, argument, cwd=where).returncode == 0
        undone = rawmount("-u", argument, cwd=where)
        assert (undone.returncode, undone.stderr) == (0, "")
        assert list(place.iterdir()) == []
    assert rawmount(disk, "new/", cwd=place).returncode == 0
    assert rawmount("-u", ".", cwd=place / "new").returncode == 0
    assert list(place.iterdir()) == []


def test_root_changes_the_image_by_a_loop_device(disk: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("only root has loop devices, and not everywhere")
    shown = rawmount(disk, place, copies=False)
    assert shown.returncode == 0, shown.stderr
    if not (place / "3").is_mount():
        rawmount("-u", place)
        pytest.skip("nothing can be mounted here")
    (place / "3" / "more").write_text("from outside\n")
    assert rawmount("-u", place).returncode == 0
    assert not place.exists()
    assert subprocess.run(["losetup", "-j", disk], capture_output=True, check=True).stdout == b""
    assert rawmount(disk, place).returncode == 0
    assert (place / "3" / "more").read_text() == "from outside\n"


def test_image_without_partitions_is_shown_as_number_0(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "greeting").write_text(GREETING)
    assert rawmount(disks.ext(tmp_path / "ext", tmp_path / "tree"), tmp_path / "place").returncode == 0
    assert (tmp_path / "place" / "0" / "greeting").read_text() == GREETING


def test_what_holds_no_file_system_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bytes(2**20))
    refused = rawmount(tmp_path / "zeros", tmp_path / "place")
    assert (refused.returncode, refused.stderr) == (1, f"rawmount.sh: {tmp_path / 'zeros'}: no file system in it\n")
    assert not (tmp_path / "place").exists()


def test_directory_of_somebody_else_is_neither_filled_nor_removed(disk: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "mine").touch()
    assert rawmount(disk, place).returncode == 1
    assert rawmount("-u", place).returncode == 1
    assert [path.name for path in place.iterdir()] == ["mine"]
