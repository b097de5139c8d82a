"""boxes: how much one recipient is told at a time."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from construir_ftp.news.boxes import Box
from construir_ftp.news.events import Event

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def event(number: int) -> Event:
    return Event(id=f"job-{number}", kind="job", time=NOON, subject=f"job {number}", text="")


def deliver(box: Box, now_s: float, most: int = 10) -> list[list[str]]:
    """All messages that go now, as the ids in each."""
    messages = []
    while due := box.due(now_s, most):
        messages.append([one.id for one in due])
        box.told(due, box.left_out, now_s)
    return messages


def test_ten_events_are_ten_messages_and_eleven_are_one() -> None:
    few, many = Box(), Box()
    for number in range(11):
        many.put(event(number))
        if number < 10:
            few.put(event(number))
    assert deliver(few, 0.0) == [[f"job-{number}"] for number in range(10)]
    assert deliver(many, 0.0) == [[f"job-{number}" for number in range(11)]]


def test_what_is_too_much_for_an_hour_waits_for_the_next_and_comes_as_one() -> None:
    box = Box()
    for number in range(10):
        box.put(event(number))
        assert deliver(box, float(number)) == [[f"job-{number}"]]
    for number in range(10, 30):
        box.put(event(number))
    assert deliver(box, 3599.0) == []
    assert deliver(box, 3600.5) == [[f"job-{number}" for number in range(10, 30)]]


def test_what_is_wrong_does_not_wait_behind_the_ends_of_jobs_and_has_bounds_of_its_own() -> None:
    box = Box()
    for number in range(10):
        box.put(event(number))
    assert len(deliver(box, 0.0)) == 10
    box.put(event(10))
    assert (deliver(box, 1.0), box.next_s(1.0, 10)) == ([], 3600.0)
    box.put(Event(id="disk", kind="disk", time=NOON, subject="the disk is nearly full", text=""))
    assert deliver(box, 2.0) == [["job-10", "disk"]]
    for number in range(20):
        box.put(Event(id=f"restarted-{number}", kind="restarted", time=NOON, subject="a part", text=""))
        deliver(box, 3.0 + number)
    assert len(box.sent_s) == 20
    assert box.events != []
    assert box.next_s(30.0, 10) > 30.0


def test_a_clock_that_was_put_back_silences_nobody() -> None:
    box = Box()
    for number in range(10):
        box.put(event(number))
    deliver(box, 1e9)
    box.put(event(10))
    assert deliver(box, 1e6) == [["job-10"]]


def test_of_what_is_too_much_to_keep_the_number_is_told() -> None:
    box = Box()
    for number in range(1234):
        box.put(event(number))
    assert (len(box.events), box.left_out) == (1000, 234)
    assert len(box.due(0.0, 10)) == 1000


def test_what_came_while_a_message_was_on_its_way_stays() -> None:
    box = Box()
    box.put(event(0))
    due = box.due(0.0, 10)
    for number in range(1, 1001):
        box.put(event(number))
    box.told(due, 0, 0.0)
    assert [one.id for one in box.events] == [f"job-{number}" for number in range(1, 1001)]


@given(st.lists(st.tuples(st.integers(0, 20), st.floats(0, 4000)), max_size=30))
def test_everything_is_told_once_in_order_and_never_more_than_ten_times_an_hour(steps: list[tuple[int, float]]) -> None:
    box, now_s, put, told, moments = Box(), 0.0, 0, [], []
    for count, pause_s in [*steps, (0, 3601.0), (0, 3601.0)]:
        now_s += pause_s
        for _ in range(count):
            box.put(event(put))
            put += 1
        messages = deliver(box, now_s)
        told += [name for message in messages for name in message]
        moments += [now_s] * len(messages)
    assert told == [f"job-{number}" for number in range(put)]
    assert all(moments[at + 10] - moments[at] >= 3600 for at in range(len(moments) - 10))
