"""What is remembered of the results in done/: enough for lists, plots and counts, so that each is read once.

A result that goes is forgotten. Nothing here is written down.
"""

import sys
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator

import msgspec

from construir_ftp.jobs.result import Result

# What of a reason a list shows.
_REASON_CHARACTERS = 200
BUCKET_S = 6 * 3600
# The last second of the year 9999, UTC: no later time, and none before the year 1, is one that Python can write.
_LATEST_S = 253402300799.0


class Fact(msgspec.Struct, frozen=True, gc=False):
    """Of one result. Times in seconds since the Epoch; what never happened is None."""

    id: str
    name: str
    contributor: str
    status: str
    reason: str
    published_s: float
    waited_s: float | None
    ran_s: float | None


def fact(job_id: str, result: Result) -> Fact:
    """What is remembered of a result."""
    published = result.published or result.ended or result.received
    reason = result.reason
    return Fact(
        id=job_id,
        name=sys.intern(result.name),
        contributor=sys.intern(result.contributor),
        status=sys.intern(result.status),
        reason=reason if len(reason) <= _REASON_CHARACTERS else reason[: _REASON_CHARACTERS - 1] + "…",
        published_s=min(max(0.0, published.timestamp()), _LATEST_S) if published else 0.0,
        waited_s=_between(result.received, result.booted),
        ran_s=_between(result.started or result.booted, result.ended),
    )


def _between(begin: object, end: object) -> float | None:
    return max(0.0, (end - begin).total_seconds()) if begin and end else None  # type: ignore[operator]


_Place = tuple[float, str]


class Bucket:
    """Six hours: how many jobs ended in them, by status, and how long each had waited, in order."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.waits_s: list[float] = []

    def note(self, one: Fact) -> None:
        """Count a result."""
        self.statuses[one.status] += 1
        if one.waited_s is not None:
            insort(self.waits_s, one.waited_s)

    def forget(self, one: Fact) -> None:
        """Count it no longer."""
        self.statuses[one.status] -= 1
        if one.waited_s is not None:
            del self.waits_s[bisect_left(self.waits_s, one.waited_s)]

    def median_wait_s(self) -> float:
        """Half of its jobs waited no longer than that."""
        return self.waits_s[len(self.waits_s) // 2] if self.waits_s else 0.0


class Shelf:
    """The facts of all results that are known."""

    def __init__(self) -> None:
        self._facts: dict[str, Fact] = {}
        self._order: list[_Place] = []
        self._of: dict[str, list[_Place]] = {}
        self._buckets: dict[int, Bucket] = {}
        self.statuses: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._facts)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._facts

    def ids(self) -> set[str]:
        """Every result that is known."""
        return set(self._facts)

    def add(self, one: Fact) -> None:
        """Know a result, which never changes."""
        if one.id in self._facts:
            return
        self._facts[one.id] = one
        place = (one.published_s, one.id)
        insort(self._order, place)
        insort(self._of.setdefault(one.contributor, []), place)
        self._buckets.setdefault(_number(one), Bucket()).note(one)
        self.statuses[one.status] += 1

    def remove(self, job_id: str) -> Fact | None:
        """Forget a result; what was known of it."""
        one = self._facts.pop(job_id, None)
        if one is None:
            return None
        place = (one.published_s, one.id)
        own = self._of[one.contributor]
        for order in (self._order, own):
            del order[bisect_left(order, place)]
        if not own:
            del self._of[one.contributor]
        self._buckets[_number(one)].forget(one)
        self.statuses[one.status] -= 1
        return one

    def newest(self, most: int) -> list[Fact]:
        """Of all contributors, the newest first."""
        return [self._facts[job_id] for _, job_id in self._order[-most:][::-1]]

    def newest_of(self, contributor: str, most: int) -> list[Fact]:
        """Of one contributor, the newest first."""
        return [self._facts[job_id] for _, job_id in self._of.get(contributor, [])[-most:][::-1]]

    def count_of(self, contributor: str) -> int:
        """How many results of a contributor there are."""
        return len(self._of.get(contributor, ()))

    def count_since(self, time_s: float) -> int:
        """How many results were published since then."""
        return len(self._order) - bisect_left(self._order, (time_s, ""))

    def contributors(self) -> list[str]:
        """Everybody who has a result, by name."""
        return sorted(self._of)

    def usual_s(self, contributor: str, name: str) -> float | None:
        """How long the last job of that contributor and name ran that succeeded; None if none of the newest did."""
        for one in self.newest_of(contributor, _LOOKED_AT):
            if one.name == name and one.status == "success":
                return one.ran_s
        return None

    def buckets(self, first: int, count: int) -> Iterator[Bucket]:
        """So many buckets, from the one of that number on; a number is time by BUCKET_S."""
        return (self._buckets.get(number) or Bucket() for number in range(first, first + count))


# How far back a job of the same name is looked for.
_LOOKED_AT = 50


def _number(one: Fact) -> int:
    return int(one.published_s // BUCKET_S)
