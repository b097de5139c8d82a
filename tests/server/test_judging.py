"""Promises of an appliance whose judges cannot be had: everybody is told, and told when it is over."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from construir_ftp.appliance import check
from construir_ftp.config import Config, SpoolSection
from construir_ftp.jail import jail
from construir_ftp.jobs import inquiry, judging
from construir_ftp.site import conditions
from tests.support.appliance import construir
from tests.support.ftpclient import Control, House, wait_until
from tests.support.prison import bare, judge_server_pids

WHY = "uploads are refused: the appliance can't check any at the moment"


@pytest.fixture
def mend() -> Callable[[], None]:
    """What gives the host its jail back."""
    kept = jail.host()

    def back() -> None:
        jail.configure()
        jail._host._jail = kept

    return back


@pytest.fixture
def jailless(house: House, mend: Callable[[], None]) -> Iterator[House]:
    """A server on a host that has lost its jail, and with it the judges that were ready."""
    assert house.listener.intake.judges.look_again() == ""
    jail.configure(required=True)
    jail._host._jail = bare()
    for pid in judge_server_pids():
        os.kill(pid, signal.SIGKILL)
    try:
        yield house
    finally:
        mend()


def look(house: House) -> str:
    """What is told once the server has looked."""
    house.server.tell_judging(house.spool.path)
    time.sleep(0.05)
    return judging.read(house.spool.path).detail


def store(alice: Control, hello: Path) -> str:
    return alice.store("/queue/hello.img.zst", hello.read_bytes())


def test_where_no_judge_can_be_had_everybody_is_told_until_one_can(
    jailless: House, hello: Path, mend: Callable[[], None]
) -> None:
    spool, said = jailless.spool, f"--spool={jailless.spool.path}"
    with jailless.connect() as control:
        assert store(control.log_in("alice"), hello).startswith("451")
    wait_until(lambda: look(jailless) != "", "it is told")
    summary = inquiry.summary(spool, 0)
    assert not summary.accepts_uploads
    assert "/" not in summary.why_no_uploads
    health = conditions.look(spool.path, summary, None)
    assert ("problem", "Uploads") in [(line.state, line.subject) for line in health]
    shown = construir("status", said, check=True).stdout
    assert WHY in shown
    assert "can't be had" in shown
    found = check._judging(Config(spool=SpoolSection(path=str(spool.path))))
    assert [(line.subject, line.state) for line in found] == [("judges", "problem")]
    mend()
    wait_until(lambda: not look(jailless), "it is over")
    assert inquiry.summary(spool, 0).accepts_uploads
    assert WHY not in construir("status", said, check=True).stdout
    with jailless.connect() as control:
        assert store(control.log_in("alice"), hello).startswith("226")


def test_a_server_that_has_judges_forgets_what_the_last_one_lacked(house: House) -> None:
    judging.tell(house.spool.path, "old news")
    assert look(house) == ""
