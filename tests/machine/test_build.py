"""Two builds of one recipe are the same, byte for byte; and a new one takes the old one's place when it has worked.

deploy/test has built two images of one recipe for the root disk, which each run compares. A build by an ordinary user,
over an older image, takes most of a minute: with --all three tests look at one. Its twin is the default image, if that
was made of the same; else there is a second build.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from construir_ftp.errors import ConstruirError
from construir_ftp.image import baseimage, versions
from construir_ftp.image.baseimage import BaseImage
from tests.support import umlimage
from tests.support.appliance import construir, copy_program
from tests.support.baseimages import BUILD_S, publish_copy, twin_of
from tests.support.places import JOBS, SUPPORT

_BUILDS = pytest.mark.slow("an ordinary user's build of a base image takes most of a minute")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that an ordinary user can reach: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="construir-test-", dir="/var/tmp") as name:
        (Path(name) / "home" / "images").mkdir(parents=True)
        yield Path(name)


@pytest.fixture(scope="module")
def own(place: Path) -> Path:
    """Base images of the builder's own."""
    return place / "home" / "images"


@pytest.fixture(scope="module")
def older(own: Path, base: BaseImage) -> BaseImage:
    """An image like the default one, but for its last byte."""

    def change(draft: Path) -> None:
        with (draft / baseimage.ROOT).open("r+b") as root:
            root.seek(-1, os.SEEK_END)
            root.write(b"x")

    return publish_copy(own, base, change)


@pytest.fixture(scope="module")
def refreshed(place: Path, own: Path, older: BaseImage) -> BaseImage:
    """The same image, built anew over the older one by an ordinary user."""
    arguments = ["image", "build", "--refresh", older.name, f"--images={own}"]
    if os.geteuid() != 0:
        said = build(*arguments)
    else:
        for path in (own, *own.rglob("*")):
            os.chown(path, 61234, 61234, follow_symlinks=False)  # rootless.sh's user
        # Nobody else may so much as read what this user makes, unless the build says so.
        script = "import os, runpy; os.umask(0o077); runpy.run_module('construir_ftp', run_name='__main__')"
        somebody = [
            "unshare",
            "--mount",
            str(SUPPORT / "rootless.sh"),
            str(place),
            str(interpreter(place)),
            "-c",
            script,
        ]
        said = run([*somebody, *arguments])
    base = baseimage.find(own, older.name)
    assert said == f"{base.name} {base.manifest.digest()}\n"
    return base


def interpreter(place: Path) -> Path:
    """A Python that any user can run, with Construir and what it needs."""
    python = Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
    if not python.exists():
        pytest.skip(f"{python} is missing: an ordinary user can't run the interpreter of these tests")
    run([str(python), "-m", "venv", "--without-pip", str(place / "venv")])
    packages = place / "venv" / "lib" / python.name / "site-packages"
    copy_program(packages)
    return place / "venv" / "bin" / "python"


@pytest.fixture(scope="module")
def twin(place: Path, base: BaseImage, refreshed: BaseImage) -> BaseImage:
    """The same image, built here: the default one, where it was made of the same."""
    return twin_of(refreshed, base, place / "mine")


def build(*arguments: str) -> str:
    return run([sys.executable, "-m", "construir_ftp", *arguments])


def run(argv: list[str]) -> str:
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, timeout=BUILD_S).stdout


def test_what_two_images_share_is_the_same_byte_for_byte(base: BaseImage, images: Path) -> None:
    try:
        other = baseimage.find(images, umlimage.NAME)
    except ConstruirError as error:
        pytest.skip(str(error))
    if base.manifest.packages != other.manifest.packages:
        pytest.skip("the archive has changed between the two builds")
    for part in (baseimage.ROOT, baseimage.KERNEL, baseimage.INITRD):
        assert base.manifest.parts[part] == other.manifest.parts[part], part


@_BUILDS
def test_two_builds_are_the_same_byte_for_byte_whoever_builds(refreshed: BaseImage, twin: BaseImage) -> None:
    if refreshed.manifest.packages != twin.manifest.packages:
        pytest.skip("the archive has changed between the two builds")
    said = construir("image", "diff", refreshed.path, twin.path)
    assert said.stdout == "the same, byte for byte\n"
    for base in (refreshed, twin):
        baseimage.verify(base)
    assert refreshed.manifest.parts == twin.manifest.parts


@_BUILDS
def test_refreshed_image_is_live_beside_the_older_one(own: Path, refreshed: BaseImage, older: BaseImage) -> None:
    assert older.path.is_dir()
    assert older.manifest.digest() != refreshed.manifest.digest()
    assert {base.path for base in versions.every(own, older.name)} == {older.path, refreshed.path}
    assert (own / older.name).resolve() == refreshed.path
    assert versions.leftovers(own) == []


@_BUILDS
def test_image_built_without_root_runs_a_job(place: Path, own: Path, refreshed: BaseImage) -> None:
    job = construir("run", JOBS / "hello", "-o", place / "result", f"--images={own}")
    assert job.returncode == 0, job.stderr
    assert job.stdout.startswith("hello from Linux")
