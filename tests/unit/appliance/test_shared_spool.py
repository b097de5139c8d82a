"""Promises of shared_spool: what nodes need of a file system is tried there, what is wrong is told, nothing is left."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from construir_ftp import process
from construir_ftp.appliance import shared_spool
from construir_ftp.appliance.finding import Finding
from construir_ftp.config import Config, SpoolSection
from construir_ftp.jobs.spool import Spool
from construir_ftp.surroundings import NodesSection
from tests.support.images import run
from tests.support.places import PROJECT

ROOT = pytest.mark.root("what is tried needs mounts, or files of another user")


def of_node(spool: Path) -> Config:
    """The configuration of a node with that spool."""
    return Config(spool=SpoolSection(path=str(spool)), nodes=NodesSection(scratch="/var/tmp"))


def found(config: Config, ahead_s: float = 0.0) -> list[Finding]:
    """What is found, where our clock is so far ahead; with nothing left behind."""
    spool = Path(config.spool.path)
    before = sorted(spool.rglob("*"))
    findings = list(shared_spool.findings(config, lambda: time.time() + ahead_s))
    assert sorted(spool.rglob("*")) == before
    return findings


def test_a_file_system_that_does_what_nodes_ask_for_is_told_in_one_line(spool: Spool) -> None:
    (one,) = found(of_node(spool.path))
    assert (one.subject, one.state, one.remedy) == ("file system", "ok", "")
    assert "hard link" in one.text


def test_where_no_other_computer_has_the_spool_nothing_is_tried(spool: Spool) -> None:
    assert found(Config(spool=SpoolSection(path=str(spool.path)))) == []


def test_a_spool_that_is_not_there_yet_is_tried_where_it_is_to_be(tmp_path: Path) -> None:
    assert [one.state for one in shared_spool.findings(of_node(tmp_path / "not" / "yet"))] == ["ok"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ahead_s", "state", "words"),
    [
        (-90.0, "warning", "90 s ahead of this computer's"),
        (90.0, "warning", "90 s behind this computer's"),
        (7200.0, "problem", "7200 s behind this computer's"),
    ],
)
def test_a_clock_that_is_off_by_more_than_a_lease_is_told(spool: Spool, ahead_s: float, state: str, words: str) -> None:
    (one,) = found(of_node(spool.path), ahead_s)
    assert (one.subject, one.state) == ("file system: clock", state)
    assert words in one.text
    assert found(of_node(spool.path), ahead_s / 4000)[0].state == "ok"


def test_what_a_check_that_was_killed_has_left_goes_with_the_next(spool: Spool) -> None:
    old, new = spool.path / "construir-check-0123", spool.path / "construir-check-4567"
    for place in (old, new):
        (place / "rename").mkdir(parents=True)
    run("touch", "-d", "2 hours ago", old)
    list(shared_spool.findings(of_node(spool.path)))
    assert (old.exists(), new.exists()) == (False, True)


# -- file systems that do not do it --------------------------------------------------------------------------------

LOOK = """
import sys
from pathlib import Path
import msgspec
from construir_ftp import config
from construir_ftp.appliance import shared_spool
settings = config.load(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
sys.stdout.buffer.write(msgspec.json.encode(list(shared_spool.findings(settings))))
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("calls", "fault", "subject", "words"),
    [
        ("?rename,renameat,renameat2", "error=EXDEV", "rename", "cross-device link"),
        ("?link,linkat", "error=EPERM", "hard link", "Operation not permitted"),
        ("fsync", "error=EIO", "fsync", "Input/output error"),
        ("fsync", "error=EDQUOT:when=4", "room", "Disk quota exceeded"),
        ("?chown,fchownat", "error=EPERM", "owner", "root can't give a file to another user"),
        ("?unlink,unlinkat", "retval=0:when=4", "deletion", "stays"),
        ("fcntl", "error=ENOLCK:when=1", "locks", "No locks available"),
    ],
)
@ROOT
def test_what_fails_is_told_with_what_to_do(
    tmp_path: Path, spool: Spool, calls: str, fault: str, subject: str, words: str
) -> None:
    """A call of the system fails, in a real process, as that of such a file system does."""
    if process.find("strace") is None:
        pytest.skip("strace is not installed")
    config = tmp_path / "construir.toml"
    config.write_text(f'[spool]\npath = "{spool.path}"\n[nodes]\nscratch = "/var/tmp"\n')
    argv = [sys.executable, "-c", LOOK, str(config)]
    with subprocess.Popen(argv, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as looks:
        assert looks.stdout is not None
        assert looks.stdout.readline() == "ready\n"
        traced = ["strace", "-f", "-p", str(looks.pid), "-o", "/dev/null"]
        traced += ["-e", f"trace={calls}", "-e", f"inject={calls}:{fault}"]
        with subprocess.Popen(traced, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            assert any("attached" in line for line in tracer.stderr), "strace may not trace here"
            said, _ = looks.communicate("\n", timeout=120)
    told = {one.subject: one for one in msgspec.json.decode(said, type=list[Finding])}
    one = told[f"file system: {subject}"]
    assert one.state == "problem"
    assert words in one.text, one
    assert one.remedy
    assert not list(spool.path.glob("construir-check-*"))


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system with little room."""
    place = tmp_path / "tiny"
    place.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place)
    yield place
    run("umount", place)


@ROOT
def test_a_file_system_without_room_is_told(tiny: Path) -> None:
    (one,) = found(of_node(tiny))
    assert (one.subject, one.state) == ("file system: room", "problem")
    assert "No space left on device" in one.text
