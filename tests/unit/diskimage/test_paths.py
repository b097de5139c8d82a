"""Promises of paths: where a path leads, and that no image makes that take long."""

from pathlib import Path

import pytest

from construir_ftp.diskimage import paths
from construir_ftp.diskimage.extfs import Image
from construir_ftp.diskimage.paths import Elsewhere
from construir_ftp.errors import ConstruirError
from tests.support.images import run


def made(place: Path, *links: tuple[str, str], names: int = 0) -> Path:
    """An image with a directory d that has itself as its entry d, `names` other names, and symbolic links."""
    tree = place / "tree"
    (tree / "d").mkdir(parents=True)
    for number in range(names):
        (tree / "d" / f"{number:0>50}d").touch()
    for name, target in links:
        (tree / name).symlink_to(target)
    run("mke2fs", "-q", "-t", "ext4", "-N", "8192", "-d", tree, place / "image", "32M")
    run("debugfs", "-w", "-R", "link /d /d/d", place / "image")
    return place / "image"


@pytest.mark.long
def test_directory_that_is_in_itself_is_not_looked_through_without_end(tmp_path: Path) -> None:
    with made(tmp_path, names=5000).open("rb") as file:
        image = Image(file)
        assert paths.follow(image, b"/job/" + b"d/" * 10) is not None
        image.look_bytes = 2**14
        with pytest.raises(ConstruirError, match="again and again"):
            paths.follow(image, b"/job/" + b"d/" * 100)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"/job/d/../../job/d/d/./d", "directory"),
        (b"/job/away/x", Elsewhere(b"/usr/x")),
        (b"/job/up/../d", Elsewhere(b"/d")),
        (b"/job/d/nothing", None),
        (b"/job/circle", None),
    ],
)
def test_path_is_followed_as_the_kernel_does(tmp_path: Path, path: bytes, found: object) -> None:
    links = [("away", "/usr"), ("up", ".."), ("circle", "circle")]
    with made(tmp_path, *links).open("rb") as file:
        ahead = paths.follow(Image(file), path)
    assert (ahead == found) if found != "directory" else (ahead is not None and not isinstance(ahead, Elsewhere))
