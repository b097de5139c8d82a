"""Whose turn is it? One contributor with a thousand jobs delays another's single job by at most one running job.

Next is whoever has the fewest jobs running; among equals, whose last turn is the longest ago; of one contributor
the oldest job. What is running counts as served, so that long jobs are not followed by a second helping. The order of
the last turns is kept in a file, so that neither is a restart.
"""

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from construir_ftp import files

# Whoever had no turn for so many turns of others is as good as one who never had any.
_REMEMBERED = 1000


def order(waiting: Iterable[tuple[str, str]], running: Iterable[str], served: Iterable[str]) -> Iterator[str]:
    """The ids of the waiting jobs, next one first, in the order in which they would run if no job ever ended.

    `waiting`: contributor and id of each, oldest first. `running`: the contributor of each that runs. `served`: the
    contributors that had turns, latest last.
    """
    jobs: dict[str, deque[str]] = {}
    for contributor, job_id in waiting:
        jobs.setdefault(contributor, deque()).append(job_id)
    last_turn, runs = _last_turns(served), Counter(running)
    line = [(runs[name], last_turn.get(name, 0), queue[0], name) for name, queue in jobs.items()]
    heapq.heapify(line)
    turn = len(last_turn)
    while line:
        runs_now, _, job_id, name = line[0]
        yield job_id
        turn += 1
        jobs[name].popleft()
        if jobs[name]:
            heapq.heapreplace(line, (runs_now + 1, turn, jobs[name][0], name))
        else:
            heapq.heappop(line)


def first(oldest: Mapping[str, str], running: Iterable[str], served: Iterable[str]) -> str | None:
    """The id that `order` begins with, where `oldest` has the id of each contributor's oldest job."""
    runs, last_turn = Counter(running), _last_turns(served)
    return min(oldest.items(), key=lambda own: (runs[own[0]], last_turn.get(own[0], 0), own[1]), default=(None, None))[
        1
    ]


def _last_turns(served: Iterable[str]) -> dict[str, int]:
    return {contributor: number for number, contributor in enumerate(served, 1)}


class Turns:
    """Who had turns, in the file at `path`; a line of JSON, latest last."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def served(self) -> list[str]:
        """The contributors that had turns, latest last. A missing or damaged file is nobody."""
        try:
            return msgspec.json.decode(files.read_anew(self._path), type=list[str])
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
            return []

    def note(self, contributor: str) -> None:
        """Remember that the contributor had a turn.

        The file is replaced in one step but not forced to stable storage: what a power cut or a full disk can cost
        is one turn too many for somebody, and no job.
        """
        served = [name for name in self.served() if name != contributor]
        with suppress(OSError):
            files.replace(self._path, msgspec.json.encode([*served, contributor][-_REMEMBERED:]))
