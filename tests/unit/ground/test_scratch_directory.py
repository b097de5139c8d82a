"""Places to work in: gone when they are left, and gone soon when nobody could leave them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from construir_ftp import locks
from tests.support.places import PROJECT

WORK = """
import sys, time
from construir_ftp import locks
with locks.scratch_directory() as place:
    (place / "disk.img").write_text("large")
    print(place, flush=True)
    sys.stdin.read()
"""


def worker() -> "tuple[subprocess.Popen[str], Path]":
    """Another process that works in a place, until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def end(process: "subprocess.Popen[str]") -> None:
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()
    process.wait(30)


def test_place_is_its_owners_alone_and_gone_with_all_that_is_in_it() -> None:
    with locks.scratch_directory() as place:
        assert place.stat().st_mode & 0o777 == 0o700
        (place / "a" / "b").mkdir(parents=True)
    assert not place.exists()


def test_place_is_gone_after_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError), locks.scratch_directory() as place:
        raise ZeroDivisionError
    assert not place.exists()


def test_place_of_a_killed_command_goes_when_the_next_is_made() -> None:
    killed, left = worker()
    killed.kill()
    end(killed)
    assert (left / "disk.img").exists()
    with locks.scratch_directory() as place:
        assert place != left
        assert not left.exists()


def test_place_that_is_worked_in_stays() -> None:
    busy, kept = worker()
    try:
        with locks.scratch_directory():
            pass
        assert (kept / "disk.img").exists()
    finally:
        end(busy)
    assert not kept.exists()


@pytest.mark.root("only root can make what belongs to another")
def test_place_of_another_user_is_left_alone() -> None:
    with locks.scratch_directory() as own:
        foreign = own.with_name(f"{own.name}-foreign")
        foreign.mkdir()
        os.chown(foreign, 65534, 65534)
        try:
            with locks.scratch_directory():
                assert foreign.exists()
        finally:
            foreign.rmdir()


def test_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    with locks.scratch_directory() as own:
        planted = own.with_name(f"{own.name}-link")
        planted.symlink_to(tmp_path)
        try:
            with locks.scratch_directory():
                assert (tmp_path / "precious").exists()
        finally:
            planted.unlink()
