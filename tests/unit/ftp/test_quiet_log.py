"""Promises of the quiet log: however often a line is caused, few are written, and what is left out is counted."""

import logging
from collections.abc import Iterator

import pytest

from construir_ftp.ftp.ioloop import Loop
from construir_ftp.ftp.quiet_log import QuietLog


@pytest.fixture
def quiet_log(caplog: pytest.LogCaptureFixture) -> Iterator[QuietLog]:
    caplog.set_level("INFO", "construir.ftp")
    with Loop() as loop:
        yield QuietLog(loop)


def run(quiet_log: QuietLog) -> None:
    """Until the interval is over."""
    while quiet_log.timer is not None:
        quiet_log._ioloop.sched.poll()


def test_the_first_few_of_an_address_are_told_at_once_and_the_others_counted(
    quiet_log: QuietLog, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1000):
        quiet_log.tell("turned away", "192.0.2.7", "line %d", number)
    quiet_log.tell("turned away", "192.0.2.8", "other line")
    assert caplog.messages == [*(f"line {number}" for number in range(5)), "other line"]
    caplog.clear()
    quiet_log.close()
    assert caplog.messages == ["turned away: 995 more in 0 s: 995 from 192.0.2.7"]


def test_many_addresses_and_kinds_cause_few_lines_and_take_little_memory(
    quiet_log: QuietLog, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5000):
        for kind in ("turned away", "no TLS"):
            quiet_log.tell(kind, f"2001:db8:{number // 2:x}::/64", "a line")
    assert len(caplog.messages) == 2 * 20
    kept = [len(counter) for kind in quiet_log._kinds.values() for counter in (kind.told, kind.untold)]
    assert max(kept) <= 101
    caplog.clear()
    quiet_log.close()
    assert len(caplog.messages) == 2
    for line in caplog.messages:
        assert "4980 more" in line
        assert sum(int(part.split()[0]) for part in line.split(": ", 2)[2].split(", ")) == 4980
        assert line.count(" from ") <= 6


def test_counts_are_told_when_the_interval_is_over_with_their_worst_level_and_then_lines_again(
    quiet_log: QuietLog, caplog: pytest.LogCaptureFixture
) -> None:
    quiet_log.interval_s = 0.05
    for _ in range(10):
        quiet_log.tell("wrong password", "192.0.2.7", "wrong", level=logging.WARNING)
        quiet_log.tell("turned away", "192.0.2.7", "away")
    caplog.clear()
    run(quiet_log)
    assert [(record.levelname, record.getMessage().partition(":")[0]) for record in caplog.records] == [
        ("WARNING", "wrong password"),
        ("INFO", "turned away"),
    ]
    caplog.clear()
    quiet_log.tell("turned away", "192.0.2.7", "away")
    assert caplog.messages == ["away"]


def test_few_lines_leave_no_timer(quiet_log: QuietLog, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        quiet_log.tell("turned away", "192.0.2.7", "away")
    assert quiet_log.timer is None
    quiet_log.close()
    assert caplog.messages == ["away"] * 5


def test_what_is_below_the_level_of_the_log_is_not_counted(
    quiet_log: QuietLog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "construir.ftp")
    for _ in range(10):
        quiet_log.tell("turned away", "192.0.2.7", "away")
    assert quiet_log.timer is None
    assert not caplog.messages
