"""What diffoscope says is told within bounds, whatever the files are; it is one of the tests' own programs."""

import gzip
import os
import random
import sys
from pathlib import Path

import pytest

from construir_ftp.trust import diffoscope


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


def test_what_it_can_not_read_is_told_so(installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "bin/diffoscope"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho Traceback >&2\nexit 2\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")
    (told,) = diffoscope.lines(*pair(tmp_path, b"x", b"y"))
    assert told.startswith("diffoscope does not say what: exit status 2 from: prlimit")
