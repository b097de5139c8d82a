"""README's quick start, run line by line as a newcomer would: open the doors, run a job here, send it, fetch it."""

import os
import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from tests.support import machines
from tests.support.appliance import CONFIG, NAME, PASSWORD, Appliance
from tests.support.ftpclient import wait_until
from tests.support.newcomer import Newcomer
from tests.support.places import PROJECT

_README = (PROJECT / "README.md").read_text()


def blocks(section: str) -> list[list[str]]:
    """The blocks of command lines of a section, without their comments."""
    text = _README.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    return [[re.sub(r"\s+#.*", "", line).strip() for line in block.splitlines()] for block in found]


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Appliance:
    place = tmp_path_factory.mktemp("appliance")
    appliance = Appliance(place, machines.light(CONFIG))
    appliance.spool.mkdir()
    return appliance


@pytest.fixture
def newcomer(tmp_path: Path, appliance: Appliance) -> Newcomer:
    return Newcomer(tmp_path, appliance)


def test_first_lines_are_what_the_tests_run_by_themselves() -> None:
    assert blocks("Try it") == [["deploy/demo", "deploy/test", "deploy/install --yes"]]
    assert all(os.access(PROJECT / line.split()[0], os.X_OK) for line in blocks("Try it")[0])
    assert (PROJECT / "tests/system/test_demo.py").exists()
    assert (PROJECT / "tests/system/test_installation.py").exists()


def test_quick_start_works_line_by_line(newcomer: Newcomer, appliance: Appliance) -> None:
    build, *doors, serve = blocks("Open your doors")[0]
    # The demo builds, and its test with it; serving is the fixture's part.
    assert (build, serve) == ("construir image build", "construir serve")
    for line in doors:
        # There is no terminal here for it to ask on.
        typed = f"{line.partition('#')[0]} --password-stdin" if line.startswith("construir user add") else line
        said = newcomer.type(typed, f"{PASSWORD}\n")
        assert said.returncode == 0, (line, said.stdout, said.stderr)
    with appliance.running():
        make, fetch = blocks("Send a job")[:2]
        *lines, send = (newcomer.at(appliance, line) for line in make)
        for line in lines:
            said = newcomer.type(line)
            assert said.returncode == 0, (line, said.stdout, said.stderr)
        accepted = re.search(r"226 Accepted as job ([^,]+),", newcomer.type(send, f"{PASSWORD}\n").stderr)
        assert accepted
        assert f"-u {NAME} " in send
        _follow(newcomer, appliance, [line.replace("ID", accepted[1]) for line in fetch], accepted[1])
        said = newcomer.type(newcomer.at(appliance, "\n".join(blocks("Send a job")[2])))
        assert said.returncode == 0, (said.stdout, said.stderr)
        assert (newcomer.desk / "greet-fetched/output.log").read_text() == "hello\n"
    _compare(newcomer.desk, appliance.spool / "done" / accepted[1])


def _follow(newcomer: Newcomer, appliance: Appliance, lines: list[str], job: str) -> None:
    while_it_runs, *afterwards = (newcomer.at(appliance, line) for line in lines)
    # It may be over before anybody has looked.
    done = appliance.spool / "done" / job
    wait_until(lambda: newcomer.type(while_it_runs).returncode == 0 or done.exists(), "it runs, or has run")
    wait_until(done.exists, "it is done")
    said = [newcomer.type(line) for line in afterwards]
    assert [result.returncode for result in said] == [0] * len(afterwards), said
    assert said[0].stdout == "hello\n"
    assert (newcomer.desk / "greet-result/made.txt").exists()


def _compare(desk: Path, published: Path) -> None:
    """What `construir run` left on the desk is what the server left in done/."""
    (local,) = (path for path in desk.iterdir() if path.is_dir() and path.name.endswith("-greet"))
    assert {path.name for path in local.iterdir()} == {path.name for path in published.iterdir()}
    for place in (local, published):
        subprocess.run(["sha256sum", "--quiet", "--check", "SHA256SUMS"], cwd=place, check=True)
    results = [msgspec.json.decode((place / "result.json").read_bytes()) for place in (local, published)]
    assert results[0].keys() == results[1].keys()
    for key in ("status", "exit_code", "name", "image", "codec", "upload_sha256", "base_image", "memory_bytes", "cpus"):
        assert results[0][key] == results[1][key], key
    assert (local / "construir.toml").read_bytes() == (published / "construir.toml").read_bytes()
