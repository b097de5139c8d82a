"""herald: at least once, in order for each recipient, remembered across any end; and nobody waits for another one."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from construir_ftp.jobs.spool import Spool
from construir_ftp.news import memory
from construir_ftp.news.arrivals import Arrivals
from construir_ftp.news.delivery import RejectedError, UndeliveredError
from construir_ftp.news.events import Condition, Message
from construir_ftp.news.herald import Carry, Herald, Look, Plan
from tests.support.ftpclient import wait_until
from tests.support.results import publish

NOTHING = Look((), {})
PAUSED = Condition("paused", "no job is run", "no machine can be started")
HOUR = timedelta(hours=1)


class Carrier:
    """Takes messages, or raises what it is told to; notes the subjects that each recipient got."""

    def __init__(self) -> None:
        self.told: dict[str, list[str]] = {}
        self.failures: list[Exception] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, message: Message, recipient: str) -> None:
        self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.told.setdefault(recipient, []).append(message.subject)

    def has(self, recipient: str, count: int) -> Callable[[], bool]:
        """Whether the recipient got so many messages."""
        return lambda: len(self.told.get(recipient, [])) >= count


def plan(carriers: dict[str, Carry], **more: object) -> Plan:
    told = tuple({"mail": "operator:ops@example.org"}.get(kind, kind) for kind in carriers)
    machines = tuple(kind for kind in carriers if kind != "mail")
    return Plan(carriers, for_trouble=told, for_jobs=machines, name="host", **more)  # type: ignore[arg-type]


@contextmanager
def herald(spool: Spool, carriers: dict[str, Carry], **more: object) -> Iterator[Herald]:
    made = Herald(spool, plan(carriers, **more), pause_s=0.05)
    made.start()
    try:
        yield made
    finally:
        made.close(60)


def waiting(spool: Spool) -> dict[str, int]:
    return {name: len(box.events) for name, box in memory.load(spool.path).boxes.items() if box.events}


def long_ago(spool: Spool) -> None:
    """Have all results come an hour ago."""
    for place in spool.state("done").iterdir():
        os.utime(place, (time.time() - HOUR.total_seconds(),) * 2)


def test_what_was_there_before_is_no_news_and_each_later_result_is_told_once_in_order(spool: Spool) -> None:
    publish(spool, 1)
    long_ago(spool)
    carrier = Carrier()
    with herald(spool, {"mail": carrier, "webhook": carrier}) as telling:
        telling.look(NOTHING)
        publish(spool, 3, published=datetime.now(UTC) - HOUR)
        publish(spool, 2)
        publish(spool, 4, "bob", datetime.now(UTC) + HOUR)
        telling.look(NOTHING)
        wait_until(carrier.has("webhook", 3), "the webhook is told")
        wait_until(carrier.has("contributor:alice", 2), "alice is told")
        wait_until(carrier.has("contributor:bob", 1), "bob is told")
        telling.look(NOTHING)
    assert carrier.told == {
        "webhook": ["[host] job3: success", "[host] job2: success", "[host] job4: success"],
        "contributor:alice": ["[host] job3: success", "[host] job2: success"],
        "contributor:bob": ["[host] job4: success"],
    }
    assert waiting(spool) == {}


def test_what_has_ended_while_the_appliance_started_is_news(spool: Spool) -> None:
    publish(spool, 1)
    long_ago(spool)
    publish(spool, 2)
    carrier = Carrier()
    with herald(spool, {"webhook": carrier}) as telling:
        telling.look(NOTHING)
        wait_until(carrier.has("webhook", 1), "the webhook is told")
    assert carrier.told == {"webhook": ["[host] job2: success"]}


def test_what_nobody_could_be_told_is_told_by_the_next_one(spool: Spool) -> None:
    stuck, carrier = Carrier(), Carrier()
    stuck.gate.clear()
    first = Herald(spool, plan({"webhook": stuck}), pause_s=0.05)
    first.look(NOTHING)
    first.start()
    for number in range(3):
        publish(spool, number)
        first.look(NOTHING)
    first.close(0.1)
    assert waiting(spool) == {"webhook": 3}
    publish(spool, 3)
    with herald(spool, {"webhook": carrier}) as second:
        second.look(NOTHING)
        wait_until(carrier.has("webhook", 4), "all is told")
    assert carrier.told == {"webhook": [f"[host] job{number}: success" for number in range(4)]}
    stuck.failures = [UndeliveredError("too late")]
    stuck.gate.set()


def test_one_that_hangs_delays_nobody_else(spool: Spool) -> None:
    stuck, carrier = Carrier(), Carrier()
    stuck.gate.clear()
    with herald(spool, {"mail": stuck, "webhook": carrier, "command": carrier}) as telling:
        telling.look(Look((PAUSED,), {}))
        wait_until(carrier.has("webhook", 1), "the webhook is told")
        wait_until(carrier.has("command", 1), "the command is told")
        wait_until(lambda: waiting(spool) == {"operator:ops@example.org": 1}, "that is remembered")
        stuck.gate.set()
        wait_until(stuck.has("operator:ops@example.org", 1), "the mail goes at last")


def test_what_fails_is_tried_again_in_order_and_what_is_rejected_is_not(spool: Spool) -> None:
    carrier = Carrier()
    carrier.failures = [UndeliveredError("down"), ValueError("a fault of ours"), RejectedError("never")]
    with herald(spool, {"webhook": carrier}) as telling:
        telling.look(NOTHING)
        for number in range(3):
            publish(spool, number)
            telling.look(NOTHING)
        wait_until(carrier.has("webhook", 2), "the rest is told")
    assert carrier.told == {"webhook": ["[host] job1: success", "[host] job2: success"]}


def test_a_condition_is_told_when_it_begins_and_when_it_is_over_but_not_each_time_that_it_flickers(
    spool: Spool,
) -> None:
    carrier, now = Carrier(), datetime.now(UTC)
    with herald(spool, {"webhook": carrier}) as telling:
        for minutes, is_there in (
            (0, True),
            (5, False),
            (9, True),
            (18, False),
            (19, True),
            (28, False),
            (29.5, False),
        ):
            telling.look(Look((PAUSED,) if is_there else (), {}), now + timedelta(minutes=minutes))
        wait_until(carrier.has("webhook", 2), "both are told")
        telling.look(NOTHING, now + HOUR)
    assert carrier.told == {"webhook": ["[host] no job is run", "[host] over: no job is run"]}


def test_a_condition_that_lasts_is_not_told_again_by_the_next_one(spool: Spool) -> None:
    carrier = Carrier()
    for _ in range(2):
        with herald(spool, {"webhook": carrier}) as telling:
            telling.look(Look((PAUSED,), {}))
            wait_until(carrier.has("webhook", 1), "it is told")
    assert carrier.told == {"webhook": ["[host] no job is run"]}


def test_parts_that_were_started_again_are_told_with_how_often(spool: Spool) -> None:
    carrier = Carrier()
    with herald(spool, {"webhook": carrier}) as telling:
        for crashes in ({"ftp": 7}, {"ftp": 7}, {"ftp": 8}, {"ftp": 10, "runner": 0}):
            telling.look(Look((), crashes))
        wait_until(carrier.has("webhook", 2), "both are told")
    assert [subject.removeprefix("[host] ftp came to a bad end") for subject in carrier.told["webhook"]] == [
        ", and was started again",
        " 2 times, and was started again",
    ]


def test_more_than_ten_in_an_hour_come_as_one(spool: Spool) -> None:
    carrier = Carrier()
    with herald(spool, {"webhook": carrier}) as telling:
        telling.look(NOTHING)
        for number in range(25):
            publish(spool, number)
        telling.look(NOTHING)
        wait_until(carrier.has("webhook", 1), "the digest is told")
    assert carrier.told == {"webhook": ["[host] 25 jobs ended"]}


def test_who_has_no_address_and_who_is_no_operator_any_more_is_told_nothing(spool: Spool) -> None:
    carrier = Carrier()
    carrier.failures = [UndeliveredError("down")] * 1000
    with herald(spool, {"mail": carrier}, reaches=lambda name: name == "alice") as telling:
        telling.look(Look((PAUSED,), {}))
        publish(spool, 1, "bob")
        publish(spool, 2, "alice")
        telling.look(NOTHING)
        assert waiting(spool) == {"operator:ops@example.org": 1, "contributor:alice": 1}
    changed = Plan({"mail": carrier}, for_trouble=(), for_jobs=(), name="host")
    telling = Herald(spool, changed)
    telling.look(Look((), {"ftp": 1}))
    assert waiting(spool) == {"contributor:alice": 1}


def test_what_ended_weeks_ago_is_no_news(spool: Spool) -> None:
    carrier = Carrier()
    with herald(spool, {"webhook": carrier}) as telling:
        telling.look(NOTHING)
        publish(spool, 1, published=datetime.now(UTC) - timedelta(days=8))
        publish(spool, 2, published=datetime.now(UTC) - timedelta(days=6))
        telling.look(NOTHING)
        wait_until(carrier.has("webhook", 1), "the younger is told")
    assert carrier.told == {"webhook": ["[host] job2: success"]}


def test_what_a_fault_of_ours_keeps_back_is_given_up_after_three_days(
    spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    carrier = Carrier()
    carrier.failures = [ValueError("a fault of ours")]
    with herald(spool, {"webhook": carrier}) as telling:
        telling.look(NOTHING)
        publish(spool, 1, published=datetime.now(UTC) - timedelta(days=4))
        publish(spool, 2)
        telling.look(NOTHING)
        wait_until(carrier.has("webhook", 1), "the younger is told")
    assert carrier.told == {"webhook": ["[host] job2: success"]}
    assert "is not told '[host] job1: success' any more: a fault of ours" in caplog.text


def test_a_result_that_could_not_be_read_for_a_moment_is_told_once(spool: Spool) -> None:
    carrier = Carrier()
    with herald(spool, {"webhook": carrier}) as telling:
        telling.look(NOTHING)
        publish(spool, 1)
        (result,) = spool.state("done").glob("*/result.json")
        there = result.rename(result.with_name("aside"))
        result.symlink_to("/proc/self/mem")  # whose first byte can't be read: EIO
        telling.look(NOTHING)
        assert waiting(spool) == {}
        there.replace(result)
        telling.look(NOTHING)
        wait_until(carrier.has("webhook", 1), "it is told")
        telling.look(NOTHING)
    assert carrier.told == {"webhook": ["[host] job1: success"]}


def test_an_id_that_is_no_utf8_silences_nobody(spool: Spool) -> None:
    carrier = Carrier()
    Path(os.fsdecode(bytes(spool.state("done")) + b"/\xff")).mkdir()
    with herald(spool, {"webhook": carrier}) as telling:
        telling.look(NOTHING)
        publish(spool, 1)
        telling.look(NOTHING)
        wait_until(carrier.has("webhook", 1), "the other is told")


NO_ZONE = b"2026-11-22T10:41:02"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"results": 3}',
        b"\xff",
        b'{"conditions": {"disk": {"kind": "disk", "seen": "%s"}}}' % NO_ZONE,
        b'{"boxes": {"webhook": {"events": [{"id": "", "kind": "test", "time": "%s", "subject": "", "text": ""}]}}}'
        % NO_ZONE,
    ],
)
def test_a_damaged_memory_begins_anew_and_says_so(
    content: bytes, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    (spool.path / memory.FILE).write_bytes(content)
    publish(spool, 1)
    long_ago(spool)
    carrier = Carrier()
    with herald(spool, {"webhook": carrier}) as telling:
        telling.look(NOTHING)
        publish(spool, 2)
        telling.look(NOTHING)
        wait_until(carrier.has("webhook", 1), "what is new is told")
    assert carrier.told == {"webhook": ["[host] job2: success"]}
    assert "begins anew" in caplog.text


def test_a_full_disk_silences_nobody(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    carrier = Carrier()
    with herald(spool, {"webhook": carrier}) as telling:
        (spool.path / memory.FILE).mkdir()  # a file can't be renamed to it
        for _ in range(3):
            telling.look(Look((PAUSED,), {}))
        wait_until(carrier.has("webhook", 1), "it is told all the same")
        (spool.path / memory.FILE).rmdir()
        telling.look(Look((PAUSED,), {}))
        wait_until((spool.path / memory.FILE).is_file, "it is remembered")
    assert carrier.told == {"webhook": ["[host] no job is run"]}
    assert caplog.text.count("can't be remembered") <= 2
    assert [path.name for path in Path(spool.path).glob(".news.json.*")] == []


def test_done_is_listed_only_when_it_has_changed(spool: Spool) -> None:
    publish(spool, 1)
    arrivals = Arrivals(spool)
    wait_until(lambda: arrivals.look() is None, "the directory's time has settled")
    publish(spool, 2)
    assert len(arrivals.look() or []) == 2
