"""Jobs in real machines: each goes in by FTP, and its result comes back from done/ by anonymous FTP.

All of them are sent at once to one appliance, and each test looks at its own: once in the machines that there are by
default, and once in user-mode ones.
"""

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from construir_ftp.config import MachineSection
from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.pack import pack, unpack
from tests.support import machines
from tests.support.appliance import CONFIG, WARM, Appliance
from tests.support.places import JOBS

QUICK = (
    "hello",
    "fails",
    "hangs",
    "reboots",
    "powersoff",
    "poweroff",
    "fillsdisk",
    "floods",
    "corrupts",
    "wipesroot",
    "network",
    "artifacts",
)
# What the job of that name leaves.
ARTIFACTS = {
    "greet_1.0-1~x+b1_all.deb": b"not really a package\n",
    "out_deep_test.log": b"log of two\n",
    "out_test.log": b"log of one\n",
}
LEFT_OUT = [
    "doc/*: matches no file",
    "out/\\x1b[31mred.deb: an artifact can't be called that",
    "out/huge.deb: with its 1099511627776 bytes more than 1073741824 in all",
    "out/new\\nline.deb: an artifact can't be called that",
    "out/pipe.deb: a pipe, and no file",
    "out/run.deb: a symbolic link, and no file",
    "out/shadow.deb: a symbolic link, and no file",
]


class Results:
    """What came back of each job."""

    def __init__(self, appliance: Appliance, ids: dict[str, str]) -> None:
        self.appliance = appliance
        self.ids = ids

    def result(self, name: str) -> dict[str, Any]:
        """result.json."""
        return self.appliance.wait(self.ids[name])

    def file(self, name: str, file: str) -> bytes:
        """One of the result's files, once there is a result."""
        self.result(name)
        return self.appliance.fetch(self.ids[name], file)

    def unpacked(self, name: str, place: Path) -> Path:
        """What the job left, unpacked into a directory."""
        packed = place / f"{name}.img.zst"
        packed.write_bytes(self.file(name, packed.name))
        unpack.unpack(packed, place / name)
        return place / name


@pytest.fixture(scope="module", params=machines.KINDS, ids=["usual", "user-mode"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which kind of machine; empty is what works here by default."""
    return str(request.param)


@pytest.fixture(scope="module")
def used(kind: str, request: pytest.FixtureRequest) -> BaseImage:
    """The base image of these machines."""
    found = request.getfixturevalue("uml_base" if kind else "base")
    assert isinstance(found, BaseImage)
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, kind: str, used: BaseImage) -> Iterator[Results]:
    place = tmp_path_factory.mktemp("jobs")
    uploads = {name: place / f"{name}.img.zst" for name in QUICK}
    hangs = shutil.copytree(JOBS / "hangs", place / "job") / "construir.toml"
    hangs.write_text('timeout = "10s"\n')
    for name, upload in uploads.items():
        pack.pack(hangs.parent if name == "hangs" else JOBS / name, upload, 4 * 2**20)
    with Appliance(place, machines.config(kind, WARM)).running() as appliance:
        yield Results(appliance, {name: appliance.submit(upload) for name, upload in uploads.items()})


def test_hello_leaves_its_file_and_its_line(results: Results, tmp_path: Path) -> None:
    result = results.result("hello")
    assert (result["status"], result["exit_code"]) == ("success", 0)
    assert result["reason"] == "run.sh ended with exit status 0"
    assert results.file("hello", "output.log").startswith(b"hello from Linux ")
    assert b" as root in /job\n" in results.file("hello", "output.log")
    assert (results.unpacked("hello", tmp_path) / "made-by-run.txt").read_text().endswith("\n")


def test_job_in_several_members_with_padding_after_them_runs(results: Results, tmp_path: Path) -> None:
    pack.pack(JOBS / "hello", tmp_path / "whole.img", 4 * 2**20, "raw")
    line = (
        "(head -c 9999 whole.img | pzstd -q -c; tail -c +10000 whole.img | zstd -q; head -c 999 /dev/zero)"
        " >members.img.zst"
    )
    subprocess.run(["sh", "-ec", line], cwd=tmp_path, check=True)
    results.ids["members"] = results.appliance.submit(tmp_path / "members.img.zst")
    assert results.result("members")["status"] == "success"
    assert (results.unpacked("members", tmp_path) / "made-by-run.txt").read_text().endswith("\n")


def test_result_names_contributor_and_machine_and_what_it_used(results: Results, used: BaseImage, kind: str) -> None:
    result = results.result("hello")
    assert result["accelerator"] in ([kind] if kind else ["kvm", "tcg"])
    assert result["base_image"] == {"name": used.name, "digest": used.manifest.digest()}
    assert result["contributor"] == "alice"
    assert result["boot_path"] in ("cold", "warm", "pooled")
    assert (result["cpus"], result["memory_bytes"]) == (1, MachineSection().memory)
    measured = result["measured"]
    assert measured["cpu_seconds"] > 0
    assert measured["peak_memory_bytes"] > 2**20
    assert measured["written_bytes"] > 0
    assert result["received"] <= result["booted"] <= result["started"] <= result["ended"] <= result["published"]


def test_sums_hold_for_every_file_of_the_result(results: Results) -> None:
    lines = results.file("hello", "SHA256SUMS").decode().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert sorted(sums) == [
        "console.log",
        "construir.toml",
        "hello.img.zst",
        "job.json",
        "output.log",
        "provenance.intoto.jsonl",
        "result.json",
    ]
    for name, digest in sums.items():
        assert hashlib.sha256(results.file("hello", name)).hexdigest() == digest


def test_result_directory_holds_what_the_state_table_says(results: Results) -> None:
    results.result("hello")
    names = {path.name for path in (results.appliance.spool / "done" / results.ids["hello"]).iterdir()}
    assert names == {
        "job.json",
        "result.json",
        "SHA256SUMS",
        "SHA256SUMS.sig",
        "provenance.intoto.jsonl",
        "output.log",
        "console.log",
        "construir.toml",
        "hello.img.zst",
    }


def test_exit_status_of_run_sh_is_the_result(results: Results) -> None:
    result = results.result("fails")
    assert (result["status"], result["exit_code"]) == ("failed", 3)
    assert results.file("fails", "output.log") == b"about to fail\n"


def test_job_that_hangs_is_killed_at_the_deadline_and_keeps_what_it_wrote(results: Results, tmp_path: Path) -> None:
    result = results.result("hangs")
    assert (result["status"], result["exit_code"]) == ("timeout", None)
    assert results.file("hangs", "output.log") == b"hanging\n"
    assert (results.unpacked("hangs", tmp_path) / "before-hanging.txt").read_text() == "kept\n"


@pytest.mark.parametrize("name", ["reboots", "powersoff"])
def test_machine_that_ends_without_a_status_gives_no_result(results: Results, name: str) -> None:
    result = results.result(name)
    assert (result["status"], result["exit_code"]) == ("no-result", None)
    assert result["attempt"] == 1
    assert results.file(name, "output.log")


def test_poweroff_ends_run_sh_by_sigkill_and_what_it_left_comes_back(results: Results, tmp_path: Path) -> None:
    result = results.result("poweroff")
    assert (result["status"], result["exit_code"], result["claimed"]["clean"]) == ("failed", 137, True)
    assert results.file("poweroff", "output.log") == b"no reboot here\n"
    assert (results.unpacked("poweroff", tmp_path) / "before-the-end.txt").read_text() == "kept\n"


def test_job_that_fills_its_disk_ends_like_any_other(results: Results) -> None:
    result = results.result("fillsdisk")
    assert result["status"] == "success"
    assert results.file("fillsdisk", "output.log") == b"job disk full: 0 KiB left\nroot disk written\n"


def test_freed_blocks_of_the_job_disk_are_not_carried_home(results: Results) -> None:
    # 4 MiB of random bytes were written and removed; had their blocks not been discarded, they would not compress.
    results.result("fillsdisk")
    assert len(results.file("fillsdisk", "fillsdisk.img.zst")) < 2**20


def test_flooded_logs_keep_their_first_and_last_part(results: Results) -> None:
    output = results.file("floods", "output.log")
    assert results.result("floods")["status"] == "success"
    assert results.result("floods")["measured"]["output_bytes"] == 8 * 2**20 + len("first line\n\nlast line\n")
    assert output.startswith(b"first line\nxxx")
    assert output.endswith(b"xxx\nlast line\n")
    assert b" bytes left out ...]\n" in output
    assert len(output) < 129 * 1024
    assert len(results.file("floods", "console.log")) < 129 * 1024


def test_job_that_corrupts_its_file_system_has_a_result(results: Results) -> None:
    result = results.result("corrupts")
    assert result["status"] in ("success", "failed", "no-result")
    assert result["attempt"] == 1
    assert results.file("corrupts", "output.log").startswith(b"corrupting\n")
    assert results.file("corrupts", "corrupts.img.zst")


def test_job_that_writes_over_the_root_disk_changes_no_base_image(results: Results, used: BaseImage) -> None:
    assert results.file("wipesroot", "output.log").startswith(b"wiping\n")
    baseimage.verify(used)


def test_job_finds_no_network(results: Results) -> None:
    assert results.file("network", "output.log").splitlines()[0] == b"interfaces: lo "
    assert b"routes: 0\n" in results.file("network", "output.log")
    assert b"no way out\n" in results.file("network", "output.log")


def test_artifacts_are_files_that_a_plain_ftp_client_fetches_whether_or_not_the_job_failed(results: Results) -> None:
    result = results.result("artifacts")
    assert (result["status"], result["exit_code"]) == ("failed", 3)
    place = f"ftp://127.0.0.1:{results.appliance.port}/done/{results.ids['artifacts']}/artifacts/"
    listed = subprocess.run(["curl", "-sSl", place], capture_output=True, text=True, check=True).stdout
    assert sorted(listed.split()) == sorted(ARTIFACTS)
    for name, content in ARTIFACTS.items():
        assert subprocess.run(["curl", "-sS", place + name], capture_output=True, check=True).stdout == content


def test_artifacts_are_listed_in_the_result_and_in_its_sums(results: Results) -> None:
    result = results.result("artifacts")
    told = {artifact["name"]: (artifact["bytes"], artifact["sha256"]) for artifact in result["artifacts"]}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in ARTIFACTS.items()}
    assert told == {name: (len(content), digests[name]) for name, content in ARTIFACTS.items()}
    assert sorted(result["artifacts_left_out"]) == LEFT_OUT
    sums = results.file("artifacts", "SHA256SUMS").decode().splitlines()
    assert sorted(line for line in sums if "artifacts/" in line) == sorted(
        f"{digest}  artifacts/{name}" for name, digest in digests.items()
    )


def test_nothing_is_left_running_or_incoming_once_all_have_ended(results: Results) -> None:
    for name in QUICK:
        results.result(name)
    states = results.appliance.states()
    assert (states["incoming"], states["queue"], states["running"]) == ([], [], [])
    assert states["done"] == sorted(results.ids.values())


def test_program_compiled_in_the_machine_runs_here(tmp_path: Path, images: Path) -> None:
    appliance = Appliance(
        tmp_path, f'{CONFIG}\n[images]\ndefault = "{baseimage.find(images, "bookworm-amd64-gcc").name}"\n'
    )
    appliance.start()
    upload = tmp_path / "compiles.img.zst"
    pack.pack(JOBS / "compiles", upload, 4 * 2**20)
    results = Results(appliance, {"compiles": appliance.submit(upload)})
    try:
        assert results.result("compiles")["status"] == "success", results.file("compiles", "output.log")
        binary = results.unpacked("compiles", tmp_path) / "greet"
        said = subprocess.run([binary, "outside"], capture_output=True, text=True, check=True).stdout
        assert said == "built by construir, run by outside\n"
    finally:
        appliance.stop()
