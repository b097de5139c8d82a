"""Two builds of one recipe are the same, byte for byte; and a new one takes the old one's place when it has worked.

Each build takes most of a minute, so that all tests look at two: one as root, over an older image, and one as an
ordinary user.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from construir_ftp import image
from construir_ftp.image import BaseImage, versions
from tests.appliance import construir
from tests.baseimages import publish_copy

HERE = Path(__file__).parent
BUILD_S = 900


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that an ordinary user can reach: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="construir-test-", dir="/var/tmp") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def older(place: Path, base: BaseImage) -> BaseImage:
    """An image like the default one, but for its last byte."""

    def change(draft: Path) -> None:
        with (draft / image.ROOT).open("r+b") as root:
            root.seek(-1, os.SEEK_END)
            root.write(b"x")

    return publish_copy(place / "images", base, change)


@pytest.fixture(scope="module")
def refreshed(place: Path, older: BaseImage) -> BaseImage:
    """The same image, built anew over the older one."""
    said = build("image", "build", "--refresh", older.name, f"--images={place / 'images'}")
    base = image.find(place / "images", older.name)
    assert said == f"{base.name} {base.manifest.digest()}\n"
    return base


@pytest.fixture(scope="module")
def rootless(place: Path, older: BaseImage) -> BaseImage:
    """The same image, built by an ordinary user."""
    if os.geteuid() != 0:
        build("image", "build", older.name, f"--images={place / 'mine'}")
        return image.find(place / "mine", older.name)
    interpreter = Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
    if not interpreter.exists():
        pytest.skip(f"{interpreter} is missing: an ordinary user can't run the interpreter of these tests")
    shutil.copytree(HERE.parent / "construir_ftp", place / "source" / "construir_ftp")
    shutil.copytree(HERE.parent / "base-image", place / "source" / "base-image")
    shutil.copytree(sysconfig.get_path("purelib"), place / "packages")
    (place / "home" / "images").mkdir(parents=True)
    os.chown(place / "home" / "images", 61234, 61234)  # rootless.sh's user
    somebody = ["unshare", "--mount", str(HERE / "rootless.sh"), str(place)]
    somebody += ["env", f"PYTHONPATH={place / 'source'}:{place / 'packages'}", str(interpreter)]
    # Nobody else may so much as read what this user makes, unless the build says so.
    script = "import os, runpy; os.umask(0o077); runpy.run_module('construir_ftp', run_name='__main__')"
    images = place / "home" / "images"
    subprocess.run(
        [*somebody, "-c", script, "image", "build", older.name, f"--images={images}"], check=True, timeout=BUILD_S
    )
    return image.find(images, older.name)


def build(*arguments: str) -> str:
    argv = [sys.executable, "-m", "construir_ftp", *arguments]
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, timeout=BUILD_S).stdout


def test_two_builds_are_the_same_byte_for_byte_whoever_builds(refreshed: BaseImage, rootless: BaseImage) -> None:
    if refreshed.manifest.packages != rootless.manifest.packages:
        pytest.skip("the archive has changed between the two builds")
    said = construir("image", "diff", refreshed.path, rootless.path)
    assert said.stdout == "the same, byte for byte\n"
    for part in image.PARTS:
        assert image.measure(refreshed.path / part) == image.measure(rootless.path / part), part


def test_refreshed_image_is_live_beside_the_older_one(place: Path, refreshed: BaseImage, older: BaseImage) -> None:
    assert older.path.is_dir()
    assert older.manifest.digest() != refreshed.manifest.digest()
    assert {base.path for base in versions.every(place / "images", older.name)} == {older.path, refreshed.path}
    assert (place / "images" / older.name).resolve() == refreshed.path


def test_refreshed_image_is_whole_and_leaves_nothing_else(place: Path, refreshed: BaseImage) -> None:
    image.verify(refreshed)
    assert versions.leftovers(place / "images") == []


def test_image_built_without_root_runs_a_job(place: Path, rootless: BaseImage) -> None:
    images = f"--images={rootless.path.parents[2]}"
    job = construir("run", HERE / "jobs" / "hello", "-o", place / "result", images)
    assert job.returncode == 0, job.stderr
    assert job.stdout.startswith("hello from Linux")
