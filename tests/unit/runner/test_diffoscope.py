"""What diffoscope says is told within bounds, whatever the files are; it is one of the tests' own programs."""

import gzip
import io
import os
import random
import sys
import tarfile
import time
from pathlib import Path

import pytest

from construir_ftp.runner import diffoscope
from tests.support.ftpclient import LONG_S


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert diffoscope.is_installed()


def pair(place: Path, old: bytes, new: bytes) -> tuple[Path, Path]:
    for name, content in (("old", old), ("new", new)):
        (place / name).write_bytes(content)
    return place / "old", place / "new"


def test_what_differs_within_a_file_is_told(installed: None, tmp_path: Path) -> None:
    packed = (gzip.compress(f"it is {day}\n".encode(), mtime=0) for day in ("Monday", "Tuesday"))
    told = diffoscope.lines(*pair(tmp_path, *packed))
    assert told[0] == f"--- {tmp_path / 'old'}"
    assert told[-2:] == ["│ -it is Monday", "│ +it is Tuesday"]
    assert diffoscope.lines(*pair(tmp_path, b"x", b"x")) == []


def test_of_large_differences_a_hundred_lines_are_told(installed: None, tmp_path: Path) -> None:
    noise = random.Random(1)
    told = diffoscope.lines(*pair(tmp_path, noise.randbytes(300_000), noise.randbytes(300_000)))
    assert len(told) == 101
    assert told[-1] == "... and more: see diffoscope"
    assert max(map(len, told)) <= 200


def test_a_link_is_not_followed_and_without_the_program_nothing_is_told(
    installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = pair(tmp_path, b"x", b"y")
    new.unlink()
    new.symlink_to("/etc/passwd")
    assert diffoscope.lines(old, new) == []
    assert diffoscope.lines(old, tmp_path / "nothing") == []
    monkeypatch.setenv("PATH", str(tmp_path))
    new.unlink()
    assert not diffoscope.is_installed()
    assert diffoscope.lines(*pair(tmp_path, b"x", b"y")) == []


def stand_in(place: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Have another program called diffoscope."""
    program = place / "own/bin/diffoscope"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_what_it_can_not_read_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "echo Traceback >&2; exit 2")
    (told,) = diffoscope.lines(*pair(tmp_path, b"x", b"y"))
    assert told.startswith("diffoscope does not say what: exit status 2 from: ")
    assert told.endswith("('Traceback')")


def test_it_is_in_a_jail_where_it_sees_two_files_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside").write_text("a secret\n")
    script = f"""for path in "$@"; do [ ! -f "$path" ] || cat "$path"; done
ls {tmp_path}; cat /etc/passwd {tmp_path}/beside || echo unseen
echo more >>{tmp_path}/old || echo unchanged
tail -n +3 /proc/net/dev | cut -d: -f1
truncate -s 1G /var/tmp/large && truncate -s 1025M /var/tmp/large || echo too large"""
    stand_in(tmp_path, monkeypatch, script)
    told = diffoscope.lines(*pair(tmp_path, b"it is old\n", b"it is new\n"))
    assert [line.strip() for line in told] == [
        *("it is old", "it is new", "new", "old", "own", "unseen", "unchanged", "lo", "too large")
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's jail reads what the user reads")
def test_a_file_that_its_jail_can_not_read_is_named(installed: None, tmp_path: Path) -> None:
    old, new = pair(tmp_path, b"x", b"y")
    new.chmod(0o600)
    (told,) = diffoscope.lines(old, new)
    assert told.endswith(f"can't read new; run: chmod o+r {new}")


# -- hostile files ---------------------------------------------------------------------------------------------------


def nested(content: bytes, levels: int) -> bytes:
    for _ in range(levels):
        place = io.BytesIO()
        with tarfile.open(fileobj=place, mode="w:gz") as archive:
            member = tarfile.TarInfo("a")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        content = place.getvalue()
    return content


def test_archives_in_archives_are_gone_into_ten_levels_deep(installed: None, tmp_path: Path) -> None:
    told = diffoscope.lines(*pair(tmp_path, nested(b"old", 100), nested(b"new", 100)))
    assert any("Reached max container depth (10)" in line for line in told)
    assert len(told) < 100


@pytest.mark.long
def test_what_unpacks_to_far_more_than_there_is_room_for_ends_in_time(installed: None, tmp_path: Path) -> None:
    large = gzip.compress(bytes(2**24)) * 1024  # 16 GiB, which are packed twice
    bombs = [gzip.compress(large + gzip.compress(end)) for end in (b"old", b"new")]
    before = set(Path("/var/tmp").iterdir())
    begun = time.monotonic()
    told = diffoscope.lines(*pair(tmp_path, *bombs), patience_s=4)
    assert time.monotonic() - begun < LONG_S
    assert told
    assert {path for path in set(Path("/var/tmp").iterdir()) - before if path.name.startswith("diffoscope")} == set()
