"""Whether somebody else wants this computer, seen of real processes and a real terminal."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from construir_ftp.config import RunnerSection
from construir_ftp.runner import owner
from construir_ftp.units import Duration, Hours

_TICKS = os.sysconf("SC_CLK_TCK")
# Says what it has found after one second of work, of its own or of a child that it has waited for.
_WORKS = """
import subprocess, sys, time
from construir_ftp.runner import owner
def work():
    while time.process_time() < 1: pass
before = owner._our_ticks()
if "child" in sys.argv:
    subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 1: pass"], check=True)
else:
    work()
print(owner._our_ticks() - before)
"""


@pytest.mark.long
@pytest.mark.parametrize("who", ["itself", "child"])
def test_what_we_use_is_ours_also_when_it_has_ended(who: str) -> None:
    said = subprocess.run([sys.executable, "-c", _WORKS, who], check=True, capture_output=True, text=True).stdout
    assert int(said) >= 0.5 * _TICKS


@contextmanager
def stranger() -> Iterator[int]:
    """A process at work that nobody here has started: its parent has ended. Its pid."""
    loop = "import time; e = time.monotonic() + 120\nwhile time.monotonic() < e: pass"
    # Whoever captures what its parent says does not wait for it, too.
    quiet = "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL"
    script = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {loop!r}], {quiet}).pid)"
    started = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    try:
        yield int(started.stdout)
    finally:
        os.kill(int(started.stdout), signal.SIGKILL)


def wait_until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 100
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ticks(pid: int) -> int:
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


def test_what_another_process_uses_is_not_ours() -> None:
    before = owner._Times.now()
    with stranger() as other:
        wait_until(lambda: ticks(other) > _TICKS)
        # A tick is counted where the clock finds a processor, what a process used to the nanosecond.
        assert owner._Times.now().of_others(before) > 0.8 * _TICKS


def test_machines_stand_still_from_when_others_are_busy_until_some_time_after() -> None:
    sensitive = owner.Owner(RunnerSection(when="idle", busy=1, away=Duration(0)), look_s=0.2, calm_s=0.5)
    with stranger():
        wait_until(lambda: sensitive.why() == owner.BUSY)
    patient = owner.Owner(RunnerSection(when="idle", busy=100, away=Duration(0)), look_s=0.2, calm_s=0.5)
    assert patient.why() == owner.UNKNOWN
    wait_until(lambda: patient.why() == "")
    assert patient.patience_s() <= 0.2


def test_somebody_who_has_just_typed_is_at_work() -> None:
    ours, theirs = os.openpty()
    try:
        path = Path(os.ttyname(theirs))
        os.utime(path, (1, 1))
        assert owner._typed_ago_s(path) > 10**6
        os.write(ours, b"ls\n")
        assert os.read(theirs, 10) == b"ls\n"
        # The kernel notes it to eight seconds (drivers/tty/tty_io.c).
        assert owner._typed_ago_s(path) < 600
        assert owner.is_somebody_at_work(600)
    finally:
        os.close(ours)
        os.close(theirs)
    assert owner._typed_ago_s(path) == math.inf


def test_nothing_is_looked_at_where_jobs_always_run() -> None:
    always = owner.Owner(RunnerSection())
    assert (always.why(), always.patience_s()) == ("", math.inf)
    by_the_hour = owner.Owner(RunnerSection(hours=Hours.parse("00:00-00:00")))
    assert (by_the_hour.why(), by_the_hour.patience_s() < 60) == ("", True)


def test_nothing_runs_before_the_computer_was_seen_to_be_idle() -> None:
    assert owner.Owner(RunnerSection(when="idle")).why() == "it is being seen whether its computer is idle"
