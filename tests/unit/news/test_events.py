"""events: what is told is lines of printable text, whatever strangers have called things."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from construir_ftp.jobs.result import Result
from construir_ftp.news import events
from construir_ftp.news.events import Condition

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
HOSTILE = "x\r\nBcc: victim@example.org\r\n\r\n<script>\x1b[2J\u202e"


def test_a_failed_job_says_how_it_ended_and_what_to_type() -> None:
    failed = Result(
        id="20261129T120000Z-0000-hello",
        name="hello",
        contributor="alice",
        status="failed",
        reason="run.sh ended with exit status 2",
        exit_code=2,
        started=NOON,
        ended=NOON + timedelta(seconds=90),
        published=NOON,
    )
    event = events.ended(failed.id, failed, NOON, "ftp://build.example.org")
    assert event.subject == "hello: failed, exit status 2"
    assert event.text.splitlines() == [
        "20261129T120000Z-0000-hello: run.sh ended with exit status 2",
        "It ran for 1.5 min.",
        "",
        "Its result:  construir fetch 20261129T120000Z-0000-hello --server ftp://build.example.org",
        "Its machine: construir shell 20261129T120000Z-0000-hello --server ftp://build.example.org",
    ]


def test_a_digest_says_how_many_of_what_and_lists_the_newest() -> None:
    condition = Condition("disk", "the disk is short of room", "")
    several = [events.ended(f"id-{n}", Result(status="success", name=f"j{n}"), NOON, "") for n in range(120)]
    told = events.message([*several, events.begins(condition, NOON)], 30, "host")
    assert told.subject == "[host] 120 jobs ended, 1 disk"
    lines = told.text.splitlines()
    assert lines[0] == "... and 51 before these"
    assert (len(lines), lines[1], lines[-1]) == (
        101,
        "2026-11-29 12:00 UTC  j21: success",
        "2026-11-29 12:00 UTC  the disk is short of room",
    )
    assert len(told.events) == 121


@given(st.text() | st.just(HOSTILE), st.text() | st.just(HOSTILE))
def test_hostile_names_and_reasons_are_one_line_each(name: str, reason: str) -> None:
    event = events.ended("id", Result(status="lost", name=name, reason=reason), NOON, "")
    message = events.message([event], 0, name)
    assert message.subject.isprintable()
    assert len(message.subject) <= 150
    assert message.text.count("\n") == 4
    assert all(line.isprintable() for line in message.text.split("\n"))


def test_two_conditions_at_the_same_moment_are_two_events() -> None:
    first, second = (events.begins(Condition("disk", subject, ""), NOON) for subject in ("one", "two"))
    assert first.id != second.id
