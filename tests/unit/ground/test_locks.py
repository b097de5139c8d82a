"""Locks that end with their holders, and directories that are held."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from construir_ftp import files, locks
from tests.support.places import PROJECT

HOLD = """
import sys
from pathlib import Path
from construir_ftp import locks
with locks.held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_ends_with_its_holder_however_that_ends(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    with subprocess.Popen(argv, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert locks.is_held(tmp_path / "lock")
        with pytest.raises(BlockingIOError), locks.held(tmp_path / "lock", wait=False):
            pass
        holder.kill()
    assert not locks.is_held(tmp_path / "lock")
    with locks.held(tmp_path / "lock", wait=False):
        pass


def test_many_may_share_a_file_and_nobody_has_it_alone_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "disk").touch()
    readers = [os.open(tmp_path / "disk", os.O_RDONLY) for _ in range(2)]
    for reader in readers:
        locks.take(reader, shared=True, wait=False)
    with pytest.raises(BlockingIOError), locks.held(tmp_path / "disk", wait=False):
        pass
    for reader in readers:
        os.close(reader)
    with locks.held(tmp_path / "disk", wait=False):
        pass


def test_a_lock_that_its_holder_removes_is_anothers_when_it_is_made_again(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locks.held(lock):
        lock.unlink()
        with locks.held(lock, wait=False) as ours:
            assert files.is_still(lock, ours)
    assert not locks.is_held(lock)


def test_what_is_not_there_is_not_held(tmp_path: Path) -> None:
    assert not locks.is_held(tmp_path / "lock")
    assert not locks.is_claimed(tmp_path / "place")


def test_claimed_directory_is_held_until_its_maker_is_done_and_its_lock_is_gone_then(tmp_path: Path) -> None:
    with locks.claimed(tmp_path, "work-") as place:
        assert locks.is_claimed(place)
        assert locks.directories(tmp_path, "work-") == [place]
        with pytest.raises(BlockingIOError), locks.abandoned(place):
            pass
    assert not locks.is_claimed(place)
    with locks.abandoned(place):
        place.rmdir()
    assert list(tmp_path.iterdir()) == []
