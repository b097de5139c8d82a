"""Base images of other releases and of another architecture, from their build to a job's result.

All of it takes minutes, and is done only with --all.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from construir_ftp import process
from construir_ftp.errors import CommandError
from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.pack import pack
from tests.support.appliance import WARM, Appliance
from tests.support.places import JOBS

BUILD_S = 3600
# A machine that is emulated throughout, on a host with more to do.
PATIENT = WARM.replace('boot_timeout = "60s"', 'boot_timeout = "5min"')
CROSS_COMPILER = "aarch64-linux-gnu-gcc"


@pytest.fixture(autouse=True)
def patience(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--all"):
        pytest.skip("images are built for this, which takes minutes: only with --all")


def construir(*arguments: str | Path) -> str:
    argv = [sys.executable, "-m", "construir_ftp", *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(images: Path, name: str, *more: str) -> BaseImage:
    construir("image", "build", name, f"--images={images}", *more)
    return baseimage.find(images, name)


@pytest.mark.parametrize("suite", ["trixie", "sid"])
def test_image_of_another_release_is_built_and_runs_jobs_with_and_without_packages(
    base: BaseImage, tmp_path: Path, suite: str
) -> None:
    """From the mirror that the default image is from, which may be behind the times."""
    mirror = f"deb [check-valid-until=no] {base.manifest.sources[0].split()[1]} {suite} main"
    other = build(tmp_path / "images", f"{suite}-amd64", f"--mirror={mirror}")
    assert other.manifest.suite == suite
    config = tmp_path / "construir.toml"
    config.write_text(f'[images]\npath = "{tmp_path}/images"\ndefault = "{other.name}"\n')
    places = (f"--config={config}", f"--spool={tmp_path}/spool")
    assert construir("run", JOBS / "hello", "-o", tmp_path / "bare", *places).startswith("hello from Linux")
    assert construir("run", greeting(tmp_path / "greets"), "-o", tmp_path / "with", *places) == "Hello, world!\n"


def greeting(job: Path) -> Path:
    """A job that needs a package."""
    job.mkdir()
    (job / "construir.toml").write_text('[dependencies]\npackages = ["hello"]\n')
    (job / "run.sh").write_text("#!/bin/sh\nexec hello\n")
    (job / "run.sh").chmod(0o755)
    return job


@pytest.fixture(scope="module")
def arm64(request: pytest.FixtureRequest, images: Path) -> BaseImage:
    """Kept beside the other images: to build it takes longest of all."""
    if not request.config.getoption("--all"):
        pytest.skip("only with --all")
    return build(images, "bookworm-arm64")


def compiled(place: Path, *more: str) -> Path:
    """A job with a program for arm64, and what else its construir.toml says."""
    job = shutil.copytree(JOBS / "foreign", place / "greet")
    try:
        process.run([CROSS_COMPILER, "-static", "-o", job / "greet", JOBS / "compiles" / "greet.c"], timeout_s=300)
    except CommandError as error:
        pytest.skip(f"no compiler for arm64: {error}")
    (job / "construir.toml").write_text("".join(f"{line}\n" for line in ('base = "bookworm-arm64"', *more)))
    pack.pack(job, place / "greet.img.zst", 2**20)
    return place / "greet.img.zst"


def test_program_compiled_for_arm64_runs_in_a_machine_of_its_own_kind(arm64: BaseImage, tmp_path: Path) -> None:
    """Sent by FTP to an appliance whose other jobs run on amd64; the first boots, a later one is cloned."""
    upload = compiled(tmp_path)
    with Appliance(tmp_path, PATIENT).running() as appliance:
        first = appliance.submit(upload)
        results = {first: appliance.wait(first)}
        appliance.wait_until_logged(f"template of {arm64.name} built")
        second = appliance.submit(upload)
        results[second] = appliance.wait(second)
        said = [appliance.fetch(job, "output.log").decode() for job in results]
        disk = appliance.fetch(second, "greet.img.zst")
    assert said == ["aarch64\nbuilt by construir, run by arm64\n"] * 2
    for result in results.values():
        assert (result["status"], result["accelerator"], result["base_image"]["name"]) == ("success", "tcg", arm64.name)
    assert [result["boot_path"] for result in results.values()] == ["cold", "warm"]
    assert greeting_in(disk, tmp_path) == said[1].partition("\n")[2]


def greeting_in(packed: bytes, place: Path) -> str:
    """What the job has written to its disk."""
    result = place / "result.img.zst"
    result.write_bytes(packed)
    construir("unpack", result, place / "unpacked")
    return (place / "unpacked" / "greeting.txt").read_text()


def test_packages_of_arm64_are_installed_for_a_job_that_asks_for_them(arm64: BaseImage, tmp_path: Path) -> None:
    upload = compiled(tmp_path, "[dependencies]", 'packages = ["hello"]')
    places = ("-o", tmp_path / "result", f"--spool={tmp_path}/spool", f"--images={arm64.path.parents[2]}")
    assert construir("run", upload, *places).startswith("aarch64\n")
    assert '"hello:arm64=' in (tmp_path / "result" / "result.json").read_text()
