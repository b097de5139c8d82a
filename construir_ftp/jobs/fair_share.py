"""Whose turn is it? One contributor with a thousand jobs delays another's single job by at most one running job.

Next is whoever has the fewest jobs running; among equals, whose last turn is the longest ago; of one contributor
the oldest job. What is running counts as served, so that long jobs are not followed by a second helping. The order of
the last turns is kept in a file, so that neither is a restart.

Of whoever has a weight so many jobs count as one: so many turns are one turn.
"""

import heapq
import time
from collections import Counter, deque
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from construir_ftp import files, schema
from construir_ftp.jobs import ipc
from construir_ftp.jobs.job import Record

# Whoever had no turn for so many turns of others is as good as one who never had any.
_REMEMBERED = 1000
_PATIENCE_S, _LOOK_S = 1.0, 0.01

NO_WEIGHTS: Mapping[str, int] = {}


def order(
    waiting: Iterable[tuple[str, str]],
    running: Iterable[str],
    served: Iterable[str],
    weights: Mapping[str, int] = NO_WEIGHTS,
    begun: Mapping[str, int] = NO_WEIGHTS,
) -> Iterator[str]:
    """The ids of the waiting jobs, next one first, in the order in which they would run if no job ever ended.

    `waiting`: contributor and id of each, oldest first. `running`: the contributor of each that runs. `served`: the
    contributors that had turns, latest last. `begun`: how many jobs each has had of a turn that is not over.
    """
    jobs: dict[str, deque[str]] = {}
    for contributor, job_id in waiting:
        jobs.setdefault(contributor, deque()).append(job_id)
    last_turn, runs, had = _last_turns(served), Counter(running), Counter(begun)
    line = [(runs[name] // weights.get(name, 1), last_turn.get(name, 0), own[0], name) for name, own in jobs.items()]
    heapq.heapify(line)
    turn = len(last_turn)
    while line:
        _, last, job_id, name = line[0]
        yield job_id
        runs[name] += 1
        had[name] += 1
        if had[name] >= weights.get(name, 1):
            turn, had[name] = turn + 1, 0
            last = turn
        jobs[name].popleft()
        if jobs[name]:
            heapq.heapreplace(line, (runs[name] // weights.get(name, 1), last, jobs[name][0], name))
        else:
            heapq.heappop(line)


def first(
    oldest: Mapping[str, str],
    running: Iterable[str],
    served: Iterable[str],
    weights: Mapping[str, int] = NO_WEIGHTS,
) -> str | None:
    """The id that `order` begins with, where `oldest` has the id of each contributor's oldest job."""
    runs, last_turn = Counter(running), _last_turns(served)

    def rank(own: tuple[str, str]) -> tuple[int, int, str]:
        name, job_id = own
        return runs[name] // weights.get(name, 1), last_turn.get(name, 0), job_id

    return min(oldest.items(), key=rank, default=(None, None))[1]


def sender_of(record: Record | None) -> str:
    """Who sent it; nobody, if it is damaged."""
    return record.contributor if record else ""


def weights_of(records: Iterable[Record | None]) -> dict[str, int]:
    """Of each contributor who has one, by what they have sent last."""
    return {record.contributor: record.weight for record in records if record and record.weight != 1}


def needs_any(record: Record | None, *unfinished: Container[str]) -> bool:
    """Whether a job depends on the result of one of these."""
    return record is not None and any(needed in jobs for needed in record.after for jobs in unfinished)


def _last_turns(served: Iterable[str]) -> dict[str, int]:
    return {contributor: number for number, contributor in enumerate(served, 1)}


class _File(msgspec.Struct, frozen=True):
    served: list[str] = []
    begun: dict[str, int] = {}


class Turns:
    """Who had turns, in the file at `path`; a line of JSON, latest last."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def served(self) -> list[str]:
        """The contributors that had turns, latest last. A missing or damaged file is nobody."""
        return self._read().served

    def begun(self) -> dict[str, int]:
        """How many jobs each has had of a turn that is not over."""
        return self._read().begun

    def _read(self) -> _File:
        try:
            found = schema.from_json(files.read_anew(self._path), _File | list[str])
        except (OSError, msgspec.MsgspecError):
            return _File()
        return _File(found) if isinstance(found, list) else found  # as an older version has it

    def note(self, contributor: str, weight: int = 1) -> None:
        """Remember that the contributor had a turn, or, with a weight, a part of one.

        The file is replaced in one step but not forced to stable storage: what a power cut or a full disk can cost
        is one turn too many for somebody, and no job.
        """
        found = self._read()
        had = found.begun.get(contributor, 0) + 1
        begun = {name: count for name, count in found.begun.items() if name != contributor}
        served = [name for name in found.served if name != contributor]
        if had < weight:
            after = _File(found.served, {**begun, contributor: had})
        else:
            after = _File([*served, contributor][-_REMEMBERED:], begun)
        with suppress(OSError):
            files.replace(self._path, msgspec.json.encode(after))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no other node choose meanwhile, lest two give the same contributor a turn; but wait for none that stands
        still: what that can cost is a turn, too.
        """
        deadline_s = time.monotonic() + _PATIENCE_S
        with ExitStack() as stack:
            while time.monotonic() < deadline_s:
                try:
                    stack.enter_context(ipc.hold(self._path.with_name("turns.lock")))
                    break
                except BlockingIOError:
                    time.sleep(_LOOK_S)
            yield
