"""A real Debian package from its source: GNU hello as a job, built, fetched by anonymous FTP, unpacked and run."""

import hashlib
import re
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from construir_ftp import process
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.layers.apt import Archive
from construir_ftp.pack import pack
from tests.support.appliance import CONFIG, Appliance

# The last two are what hello's own Build-Depends has beside debhelper: dpkg-buildpackage begins nothing without them.
ASKS = """
name = "hello"
space = "256MiB"
outputs = ["*.deb", "*.changes"]
[dependencies]
packages = ["build-essential", "debhelper", "help2man", "texinfo"]
"""
BUILD = """#!/bin/sh -e
dpkg-source --extract hello_*.dsc source
cd source
dpkg-buildpackage -b -us -uc
"""
SLOW = CONFIG.replace('"10min"', '"2h"')
HOUR_S = 3600


def fetch_source(name: str, base: BaseImage, place: Path, target: Path) -> None:
    """Put a source package of the base image's own archive into `target`; apt checks the signatures."""
    archive = Archive(place / "archive", base)
    archive.prepare()
    binaries = archive.place / "base/etc/apt/sources.list"
    sources = place / "sources.list"
    sources.write_text(re.sub(r"^deb\b", "deb-src", binaries.read_text(), flags=re.MULTILINE))
    configuration = place / "apt.conf"
    settings = f'Dir::Etc::SourceList "{sources}";\nDir::Etc::SourceParts "/dev/null";\n'
    configuration.write_text((archive.place / "apt.conf").read_text() + settings)
    env = process.environment(APT_CONFIG=str(configuration))
    process.run(["apt-get", "update", "--error-on=any"], timeout_s=600, env=env)
    subprocess.run(["apt-get", "source", "--download-only", name], check=True, capture_output=True, cwd=target, env=env)


def job_of(name: str, base: BaseImage, place: Path) -> Path:
    """A source package as a job, as it is uploaded."""
    job = place / "job"
    job.mkdir()
    fetch_source(name, base, place, job)
    (job / "construir.toml").write_text(ASKS)
    (job / "run.sh").write_text(BUILD)
    (job / "run.sh").chmod(0o755)
    pack.pack(job, place / f"{name}.img.zst", 2**20)
    return place / f"{name}.img.zst"


def seconds(result: dict[str, Any], begin: str, end: str) -> float:
    moments = [datetime.fromisoformat(result[key]) for key in (begin, end)]
    return (moments[1] - moments[0]).total_seconds()


@pytest.mark.slow("installing a compiler and building a package takes many minutes under emulation")
def test_debian_package_is_built_from_its_source_and_the_second_time_on_the_layer_of_the_first(
    request: pytest.FixtureRequest, tmp_path: Path, base: BaseImage, capsys: pytest.CaptureFixture[str]
) -> None:
    upload = job_of("hello", base, tmp_path)
    with Appliance(tmp_path, SLOW).running() as appliance:
        results = []
        for _ in range(2):
            job = appliance.submit(upload)
            results.append(appliance.wait(job, HOUR_S))
            assert results[-1]["status"] == "success", appliance.fetch(job, "output.log").decode()[-4000:]
        names = [artifact["name"] for artifact in results[-1]["artifacts"]]
        (name,) = (name for name in names if name.startswith("hello_") and name.endswith(".deb"))
        package = tmp_path / name
        package.write_bytes(appliance.fetch(job, f"artifacts/{name}"))
        sums = appliance.fetch(job, "SHA256SUMS").decode().splitlines()
    first, second = results
    assert first["used"]["layers"] == second["used"]["layers"]
    waited, again = (seconds(result, "received", "booted") for result in results)
    assert again < waited / 2
    with capsys.disabled():
        for which, result in zip(("first", "second"), results, strict=True):
            print(
                f"\n{which} time: {seconds(result, 'received', 'booted'):.1f} s until its machine,"
                f" {seconds(result, 'booted', 'ended'):.1f} s in it"
            )
    assert f"{hashlib.sha256(package.read_bytes()).hexdigest()}  artifacts/{name}" in sums
    subprocess.run(["dpkg-deb", "--extract", package, tmp_path / "installed"], check=True)
    said = subprocess.run([tmp_path / "installed/usr/bin/hello"], check=True, capture_output=True, text=True)
    assert said.stdout == "Hello, world!\n"
