"""What there is to tell, and in which words: a condition of the appliance that begins or ends, a job that has ended.

Words of strangers, such as the names of jobs and the reasons of results, are made printable here: what is told is text
of one line after another, whoever carries it.
"""

import zlib
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from construir_ftp.errors import one_line
from construir_ftp.jobs.result import Moment, Result
from construir_ftp.units import in_words

Kind = Literal[
    "job", "paused", "judging", "disk", "base-image", "base-image-old", "certificate", "pilots", "restarted", "test"
]
# What a subject says of several events, by their kinds.
_OF_KIND = {
    "job": "jobs ended",
    "paused": "pauses",
    "judging": "checks of uploads",
    "disk": "disk",
    "base-image": "base image",
    "base-image-old": "old base image",
    "certificate": "certificate",
    "pilots": "pilots",
    "restarted": "restarts",
    "test": "tests",
}
_SUBJECT_CHARACTERS = 150
_MOST_LISTED = 100


class Condition(msgspec.Struct, frozen=True):
    """What is not as it should be at the moment. `subject` names it in a few words, and stays the same as long as it
    lasts; `text` says more, and what to do.
    """

    kind: Kind
    subject: str
    text: str


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something to be told once, by its `id`. A condition's `state` says whether it begins or is over.

    `job` and `contributor` are those of a job that has ended.
    """

    id: str
    kind: Kind
    time: Moment
    subject: str
    text: str
    state: Literal["", "begins", "over"] = ""
    job: str = ""
    contributor: str = ""


class Message(msgspec.Struct, frozen=True):
    """What one recipient is told at a time: one event, or a digest. `left_out` counts older ones nobody lists."""

    id: str
    subject: str
    text: str
    events: tuple[Event, ...]
    left_out: int = 0


def begins(condition: Condition, now: datetime) -> Event:
    """A condition that was not there before."""
    return Event(
        id=_identity(condition.kind, condition.subject, now),
        kind=condition.kind,
        time=now,
        subject=one_line(condition.subject),
        text=one_line(condition.text),
        state="begins",
    )


def is_over(kind: Kind, subject: str, now: datetime) -> Event:
    """A condition that is not there any more."""
    return Event(
        id=_identity(f"{kind}-over", subject, now),
        kind=kind,
        time=now,
        subject=f"over: {one_line(subject)}",
        text="It is as it should be again.",
        state="over",
    )


def restarted(part: str, times: int, now: datetime) -> Event:
    """A part of the appliance that has come to a bad end, and was started again."""
    often = "" if times == 1 else f" {times} times"
    return Event(
        id=_identity("restarted", part, now),
        kind="restarted",
        time=now,
        subject=f"{part} came to a bad end{often}, and was started again",
        text="The log of construir serve says why. No job is lost by it.",
    )


def test(now: datetime) -> Event:
    """What shows that news arrive."""
    text = "This is a test, which construir news --test has sent. News of this appliance come this way."
    return Event(id=_identity("test", "", now), kind="test", time=now, subject="a test", text=text)


def ended(job_id: str, result: Result, now: datetime, server: str) -> Event:
    """A job that has its result. `server` is the address that contributors know, if it is known here."""
    how = result.status if result.exit_code in (None, 0) else f"{result.status}, exit status {result.exit_code}"
    at = f" --server {server}" if server else ""
    lines = [f"{one_line(job_id)}: {one_line(result.reason) or one_line(how)}"]
    if result.started and result.ended:
        lines.append(f"It ran for {in_words(max(0.0, (result.ended - result.started).total_seconds()))}.")
    lines.append(f"\nIts result:  construir fetch {one_line(job_id)}{at}")
    if result.status not in ("success", "cancelled"):
        lines.append(f"Its machine: construir shell {one_line(job_id)}{at}")
    return Event(
        id=f"job-{one_line(job_id)}",
        kind="job",
        time=result.published or now,
        subject=f"{one_line(result.name) or one_line(job_id)}: {one_line(how)}",
        text="\n".join(lines),
        job=job_id,
        contributor=result.contributor,
    )


def message(events: Sequence[Event], left_out: int, name: str) -> Message:
    """What tells these events, at least one; `name` is the appliance's, for the subject."""
    if len(events) == 1 and not left_out:
        (only,) = events
        return Message(only.id, _subject(name, only.subject), only.text + "\n", (only,))
    counts = Counter(event.kind for event in events)
    what = ", ".join(f"{count} {_OF_KIND[kind]}" for kind, count in counts.items())
    lines = [f"{event.time:%Y-%m-%d %H:%M} UTC  {event.subject}" for event in events[-_MOST_LISTED:]]
    unlisted = left_out + max(0, len(events) - _MOST_LISTED)
    if unlisted:
        lines.insert(0, f"... and {unlisted} before these")
    identity = f"{events[0].id}-to-{events[-1].id}"
    return Message(identity, _subject(name, what), "\n".join(lines) + "\n", tuple(events), left_out)


def _identity(kind: str, subject: str, now: datetime) -> str:
    return f"{kind}-{zlib.crc32(subject.encode(errors='replace')):08x}-{now:%Y%m%dT%H%M%S.%fZ}"


def _subject(name: str, what: str) -> str:
    return f"[{one_line(name)}] {what}"[:_SUBJECT_CHARACTERS]
