"""A job says what it needs in its construir.toml, through the whole appliance: by FTP in, from done/ out."""

import ftplib
import os
from pathlib import Path

import msgspec
import pytest

from construir_ftp.image.baseimage import BaseImage
from construir_ftp.pack import pack
from tests.support import images
from tests.support.appliance import Appliance, paused_runner


def upload(
    place: Path, script: str, asks: str, others: dict[str, str] | None = None, *, room_bytes: int = 2**20
) -> Path:
    """A job, as it is uploaded, with room for files; `others` are programs of its own beside run.sh."""
    job = place / "job"
    job.mkdir(parents=True)
    (job / "run.sh").write_text(f"#!/bin/sh -e\n{script}\n")
    (job / "run.sh").chmod(0o755)
    (job / "construir.toml").write_text(asks)
    for name, text in (others or {}).items():
        (job / name).parent.mkdir(exist_ok=True)
        (job / name).write_text(text)
        (job / name).chmod(0o755)
    pack.pack(job, place / "job.img.zst", room_bytes)
    return place / "job.img.zst"


@pytest.mark.parametrize(
    ("asks", "reason"),
    [
        ("tiemout = '1h'", "construir.toml: tiemout: no such key"),
        ("timeout = '9h'", "construir.toml: timeout: at most"),
        ("base = 'woody-i386'", "construir.toml: base: there is no base image 'woody-i386' here; there are: "),
        ("[dependencies]\npackages = ['no-such-thing']", "Unable to locate package no-such-thing"),
        ("[dependencies]\nresults = ['20200101T000000Z-0000-x']", "there is no job 20200101T000000Z-0000-x"),
        ("[dependencies]\nlayers = ['ghc']", "there is no layer ghc"),
        (
            "timeout = '9h'\ncpus = 64\n[dependencies]\npackages = ['no-such-thing']\nlayers = ['ghc']",
            " can be had here; dependencies.layers: there is no layer ghc; see /layers;"
            " dependencies.packages: Unable to locate package no-such-thing in the archive of ",
        ),
        (
            "base = 'woody-i386'\n[dependencies]\npackages = ['no-such-thing']\nlayers = ['ghc']",
            "; dependencies.layers: there is no layer ghc",
        ),
    ],
)
def test_wish_that_cannot_be_granted_is_refused_in_session(
    shared_appliance: Appliance, tmp_path: Path, asks: str, reason: str
) -> None:
    job = images.job_directory(tmp_path / "job")
    (job / "construir.toml").write_text(asks)
    file = images.of_directory(job, tmp_path / "job.img")
    with shared_appliance.session() as ftp, file.open("rb") as data, pytest.raises(ftplib.error_perm) as refused:
        ftp.storbinary("STOR /queue/job.img.zst", data)
    assert str(refused.value).startswith("550 ")
    assert reason in str(refused.value)
    assert shared_appliance.states()["queue"] == []


def test_job_gets_its_machine_its_packages_and_the_result_it_waits_for(
    shared_appliance: Appliance, light_base: BaseImage, tmp_path: Path
) -> None:
    asks = (
        'name = "first"\nrun = "./run.sh"\nmemory = "600MiB"\n[env]\nWORD = "a b"\n[dependencies]\npackages = ["hello"]'
    )
    script = 'sleep 2; hello; echo "$WORD"; head -1 /proc/meminfo; echo kept >/job/kept'
    first = shared_appliance.submit(upload(tmp_path / "first", script, asks))
    second_asks = f'name = "second"\n[dependencies]\nresults = ["{first}"]'
    second = shared_appliance.submit(upload(tmp_path / "second", "cat /deps/first/kept; nproc", second_asks))
    result = shared_appliance.wait(first)
    assert (result["status"], result["name"]) == ("success", "first"), shared_appliance.fetch(first, "output.log")
    said = shared_appliance.fetch(first, "output.log").decode()
    assert said.startswith("Hello, world!\na b\nMemTotal:")
    assert 500_000 < int(said.split()[-2]) < 600_000
    assert result["memory_bytes"] == 600 * 2**20
    assert [layer["contents"] for layer in result["used"]["layers"]] == [["hello:amd64=2.10-3"]]
    resolved = shared_appliance.fetch(first, "construir.toml").decode()
    assert f'base = "{light_base.name}"' in resolved
    after = shared_appliance.wait(second)
    assert (after["status"], after["used"]["results"]) == ("success", [first]), after
    assert shared_appliance.fetch(second, "output.log").startswith(b"kept\n")


def test_job_gets_the_time_and_the_program_it_asks_for(shared_appliance: Appliance, tmp_path: Path) -> None:
    asks = {
        "late": 'timeout = "4s"',
        "silent": 'idle_timeout = "3s"',
        "other": 'run = "./bin/other"\ntimeout = "20s"',
    }
    script = 'while sleep 1; do [ "$(hostname)" = silent ] || echo busy; done'
    others = {"bin/other": "#!/bin/sh\necho other\n"}
    jobs = {
        name: shared_appliance.submit(upload(tmp_path / name, script, f'name = "{name}"\n{asked}', others))
        for name, asked in asks.items()
    }
    results = {name: shared_appliance.wait(job) for name, job in jobs.items()}
    assert {name: result["status"] for name, result in results.items()} == {
        "late": "timeout",
        "silent": "idle-timeout",
        "other": "success",
    }
    assert shared_appliance.fetch(jobs["other"], "output.log") == b"other\n"
    assert 'timeout = "20s"' in shared_appliance.fetch(jobs["other"], "construir.toml").decode()


def test_job_gets_the_memory_and_the_processors_it_asks_for(usual_appliance: Appliance, tmp_path: Path) -> None:
    """A user-mode machine has one processor, whatever is asked for."""
    cpus = min(2, len(os.sched_getaffinity(0)))
    asks = f'cpus = {cpus}\nmemory = "600MiB"'
    job = usual_appliance.submit(upload(tmp_path / "job", "nproc; head -1 /proc/meminfo", asks))
    result = usual_appliance.wait(job)
    assert (result["status"], result["cpus"], result["memory_bytes"]) == ("success", cpus, 600 * 2**20)
    said, _, kib, _ = usual_appliance.fetch(job, "output.log").decode().split()
    assert int(said) == cpus
    assert 500_000 < int(kib) < 600_000


def test_job_fails_with_the_one_it_depends_on(shared_appliance: Appliance, tmp_path: Path) -> None:
    with paused_runner(shared_appliance):  # what a job that has failed already would leave is refused at the door
        first = shared_appliance.submit(upload(tmp_path / "first", "exit 3", ""))
        second = shared_appliance.submit(upload(tmp_path / "second", "true", f'[dependencies]\nresults = ["{first}"]'))
    result = shared_appliance.wait(second)
    assert (result["status"], result["exit_code"]) == ("dependency-failed", None)
    assert result["reason"] == f"job {first}, whose result is needed, ended as failed"
    assert "result.json" in shared_appliance.fetch(second, "SHA256SUMS").decode()
    assert msgspec.json.decode(shared_appliance.fetch(first, "result.json"))["status"] == "failed"


def test_job_gets_the_space_it_asks_for(shared_appliance: Appliance, tmp_path: Path) -> None:
    script = "head -c 40000000 /dev/zero | tr '\\0' x >/job/large"
    job = shared_appliance.submit(upload(tmp_path / "upload", script, 'space = "60MiB"'))
    result = shared_appliance.wait(job)
    assert result["status"] == "success", shared_appliance.fetch(job, "output.log")
    assert 60 * 2**20 < result["image_bytes"] < 70 * 2**20
