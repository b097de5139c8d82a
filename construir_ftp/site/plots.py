"""Plots as shapes, for templates/plots.html to draw: a week of the appliance, the timeline of a job.

Lengths are in the units of each plot's own viewBox. Every plot also has its words, for whoever does not see it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from construir_ftp.jobs.result import Result
from construir_ftp.site import words
from construir_ftp.site.shelf import BUCKET_S, Bucket, Shelf

WIDTH, HEIGHT = 320, 72
BUCKETS = 28
_SHORTEST = 4.0


class Bar(NamedTuple):
    """A rectangle; `kind` is its class."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str


class Plot(NamedTuple):
    """`summary` says it in a sentence; `line` is the points of a polyline, or empty; `top` labels the upper edge."""

    title: str
    summary: str
    top: str
    bars: list[Bar]
    line: str = ""


class Sample(NamedTuple):
    """How much room there was on the disk."""

    time_s: float
    free_bytes: int


def week(shelf: Shelf, room: Sequence[Sample], now_s: float) -> list[Plot]:
    """The last seven days."""
    first = int(now_s // BUCKET_S) - BUCKETS + 1
    buckets = list(shelf.buckets(first, BUCKETS))
    return [_jobs(buckets, first), _failures(buckets, first), _waits(buckets, first), _room(room, now_s)]


def _jobs(buckets: list[Bucket], first: int) -> Plot:
    totals = [bucket.statuses.total() for bucket in buckets]
    most = max(*totals, 1)
    bars = []
    for number, bucket in enumerate(buckets):
        good = bucket.statuses["success"]
        bars.append(_bar(number, good, most, 0, "good", f"{_when(first + number)}: {good} succeeded"))
        rest = totals[number] - good
        bars.append(_bar(number, rest, most, good, "bad", f"{_when(first + number)}: {rest} did not succeed"))
    done, good = sum(totals), sum(bucket.statuses["success"] for bucket in buckets)
    summary = f"{words.count(done, 'job')} ended, {good:,} with success" if done else "No job ended"
    return Plot("Jobs", summary, f"{most:,} in 6 h", [bar for bar in bars if bar.height])


def _failures(buckets: list[Bucket], first: int) -> Plot:
    parts = [_part_that_failed(bucket) for bucket in buckets]
    bars = [
        _bar(number, part, 1, 0, "bad", f"{_when(first + number)}: {part:.0%}") for number, part in enumerate(parts)
    ]
    done = sum(bucket.statuses.total() for bucket in buckets)
    failed = done - sum(bucket.statuses["success"] for bucket in buckets)
    summary = f"{failed / done:.0%} of all jobs did not succeed" if done else "No job ended"
    return Plot("Without success", summary, "100 %", [bar for bar in bars if bar.height])


def _part_that_failed(bucket: Bucket) -> float:
    done = bucket.statuses.total()
    return (done - bucket.statuses["success"]) / done if done else 0.0


def _waits(buckets: list[Bucket], first: int) -> Plot:
    waits_s = [bucket.median_wait_s() for bucket in buckets]
    most_s = max(*waits_s, 1.0)
    bars = [
        _bar(number, wait_s, most_s, 0, "wait", f"{_when(first + number)}: {words.length(wait_s)}")
        for number, wait_s in enumerate(waits_s)
    ]
    known = sorted(wait_s for wait_s, bucket in zip(waits_s, buckets, strict=True) if bucket.waits_s)
    summary = f"Half of the jobs began within {words.length(known[len(known) // 2])}" if known else "No job waited"
    return Plot("Waiting time", summary, words.length(most_s), [bar for bar in bars if bar.height])


def _room(room: Sequence[Sample], now_s: float) -> Plot:
    most = max([*(sample.free_bytes for sample in room), 1])
    begin_s, length_s = now_s - BUCKETS * BUCKET_S, BUCKETS * BUCKET_S
    points = [
        (max(0.0, (sample.time_s - begin_s) / length_s) * WIDTH, HEIGHT - sample.free_bytes / most * (HEIGHT - 4))
        for sample in room
        if sample.time_s >= begin_s
    ]
    if points and points[-1][0] - points[0][0] < _SHORTEST:
        points = [(points[0][0] - _SHORTEST, points[0][1]), *points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    least = min((sample.free_bytes for sample in room), default=0)
    summary = f"{words.size(room[-1].free_bytes)} free, {words.size(least)} at least" if room else "Not known yet"
    return Plot("Room on the disk", summary, words.size(most), [], line)


def _bar(number: int, value: float, most: float, below: float, kind: str, title: str) -> Bar:
    step, scale = WIDTH / BUCKETS, (HEIGHT - 4) / most
    height = max(value * scale, 1.5) if value else 0.0
    return Bar(number * step + 1, HEIGHT - below * scale - height, step - 2, height, kind, title)


def _when(number: int) -> str:
    return words.clock(words.moment(number * BUCKET_S))


# -- one job ---------------------------------------------------------------------------------------------------


class Stage(NamedTuple):
    """A part of a job's life; `x` and `width` are in hundredths of its whole length."""

    kind: str
    name: str
    begin: datetime
    length_s: float
    x: float
    width: float


def timeline(result: Result) -> list[Stage]:
    """The stages of a job whose ends are known, in their order; each is wide enough to be seen."""
    marks = [
        ("wait", "waited", result.received, result.booted),
        ("boot", "machine got ready", result.booted, result.started),
        ("run", "ran", result.started or result.booted, result.ended),
        ("pack", "packed", result.ended, result.published),
    ]
    known = [
        (kind, name, begin, max(0.0, (end - begin).total_seconds()))
        for kind, name, begin, end in marks
        if begin is not None and end is not None
    ]
    whole_s = sum(length_s for *_, length_s in known) or 1.0
    widths = [max(length_s / whole_s * 100, _SHORTEST / 4) for *_, length_s in known]
    scale, x, stages = 100 / (sum(widths) or 1), 0.0, []
    for (kind, name, begin, length_s), width in zip(known, widths, strict=True):
        stages.append(Stage(kind, name, begin, length_s, x, width * scale))
        x += width * scale
    return stages
