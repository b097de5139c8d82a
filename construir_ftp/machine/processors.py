"""Which processors machines are kept on that are quicker on one than on several: those least taken by this process.

A user-mode kernel and its guest's processes take turns; on two processors each turn wakes up an idle one.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_taken: Counter[int] = Counter()


@contextmanager
def taken(count: int) -> Iterator[set[int]]:
    """So many processors, or as many as this process may use, free ones first; given back at the end."""
    with _lock:
        chosen = sorted(os.sched_getaffinity(0), key=lambda number: (_taken[number], number))[:count]
        _taken.update(chosen)
    try:
        yield set(chosen)
    finally:
        with _lock:
            _taken.subtract(chosen)


@contextmanager
def starting_on(chosen: set[int]) -> Iterator[None]:
    """What this thread starts meanwhile stays on these processors, with all that it starts itself."""
    usual = os.sched_getaffinity(0)
    os.sched_setaffinity(0, chosen)
    try:
        yield
    finally:
        os.sched_setaffinity(0, usual)
