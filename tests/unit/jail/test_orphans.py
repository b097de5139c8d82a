"""A start sweeps up what outlived its owner."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from construir_ftp import process
from construir_ftp.jail import jail, orphans
from construir_ftp.jail.cell import Cell
from tests.support.places import PROJECT
from tests.support.prison import nothing_left, running


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_left():
        yield


# Whatever starts on this host sweeps it, such as an appliance of a test beside this one: who was first may be another.
TRIES = 5


def test_what_outlived_its_owner_is_swept_up_and_nothing_else() -> None:
    assert any(sweeps_what_is_left() for _ in range(TRIES))


def sweeps_what_is_left() -> bool:
    """Whether what outlived its owner, and is ended at any rate, is told as swept up here."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    namespace = orphans.owner().split("-")[0]
    names = {
        "left": f"{namespace}-{gone.pid}-1",
        "owned": orphans.owner(),
        "far": f"1-{gone.pid}-1",
        "odd": "nonsense",
    }
    sleepers = {
        name: subprocess.Popen(["sleep", "1000"], env={"PATH": "/bin:/usr/bin", orphans.VARIABLE: mark})
        for name, mark in names.items()
    }
    try:
        # A child has its own environment only once it has become the other program.
        while any(b"sleep" not in Path(f"/proc/{child.pid}/cmdline").read_bytes() for child in sleepers.values()):
            time.sleep(0.01)
        swept = jail.sweep()
        assert sleepers["left"].wait(30) == -signal.SIGKILL
        assert [name for name, child in sleepers.items() if child.poll() is None] == ["owned", "far", "odd"]
        return sleepers["left"].pid in swept
    finally:
        for child in sleepers.values():
            child.kill()
            child.wait()


_STARTS = """
import time
from construir_ftp.jail import jail
from construir_ftp.jail.cell import Cell
prison = jail.host()
print(flush=True)
while True:
    with prison.hold(Cell(), ["sleep", "1000"]):
        time.sleep(0.004)
"""


def test_nothing_is_left_of_an_owner_that_was_killed_at_any_moment() -> None:
    for moment in range(12):
        argv = [sys.executable, "-c", _STARTS]
        env = process.environment(PYTHONPATH=str(PROJECT))
        with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE) as owner:
            assert owner.stdout is not None
            owner.stdout.readline()
            time.sleep(moment * 0.0013)
            owner.kill()
        jail.sweep()
        assert marked(f"{orphans.VARIABLE}={orphans.owner().split('-')[0]}-{owner.pid}-") == []


def marked(mark: str) -> list[str]:
    """The programs that have this in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (path / "environ").read_text(errors="replace"):
                found.append((path / "comm").read_text())
    return found


def test_a_jail_carries_its_owners_mark() -> None:
    with jail.host().hold(Cell(), ["sh", "-c", "echo up; sleep 1000"], stdout=subprocess.PIPE) as prisoner:
        inside = running(prisoner)
        for pid in (inside, prisoner.process.pid):
            assert f"{orphans.VARIABLE}={orphans.owner()}" in Path(f"/proc/{pid}/environ").read_text()
