"""Threads in which uploads are checked: of those that wait for one, the contributor's that has the fewest is next.

A check may take minutes, and a thread waits for it. So one contributor has half of the threads at most, however many
uploads he sends at once: another one's upload finds a thread. A check that waits for a package archive steps `aside`.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from construir_ftp.errors import RefusedError

T = TypeVar("T")

# So many checks may be aside at once; half of them of one contributor.
_MOST_ASIDE = 16
# Which threads those are that a thread belongs to, and whose check it does.
_here = threading.local()


@contextmanager
def aside() -> Iterator[None]:
    """Within, the thread that does a check only waits, and another check has its place; nothing in any other thread.

    Raises RefusedError (452) where too many are aside.
    """
    threads: CheckThreads | None = getattr(_here, "threads", None)
    if threads is None:
        yield
        return
    whose: str = _here.whose
    threads.step_aside(whose)
    try:
        yield
    finally:
        threads.step_back(whose)


class CheckThreads:
    """So many threads. Safe to use from several."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads + _MOST_ASIDE, "check")
        self._threads, self._most = threads, max(1, threads // 2)
        self._lock = threading.Lock()
        # Whoever had a turn comes last.
        self._waiting: dict[str, deque[tuple[Future[Any], Callable[[], Any]]]] = {}
        self._busy: Counter[str] = Counter()
        self._aside: Counter[str] = Counter()
        self._is_ending = False

    def submit(self, whose: str, work: Callable[[], T]) -> "Future[T]":
        """Have a thread do a contributor's work; does not wait."""
        future: Future[T] = Future()
        with self._lock:
            self._waiting.setdefault(whose, deque()).append((future, work))
            self._start_next()
        return future

    def shutdown(self) -> None:
        """Wait until all work is done."""
        with self._lock:
            self._is_ending = True
        self._pool.shutdown()

    def step_aside(self, whose: str) -> None:
        """See `aside`."""
        with self._lock:
            if self._aside.total() >= _MOST_ASIDE or self._aside[whose] >= _MOST_ASIDE // 2:
                raise RefusedError("too many uploads wait for the package archive; try again later", 452)
            self._aside[whose] += 1
            _count_down(self._busy, whose)
            if not self._is_ending:
                self._start_next()

    def step_back(self, whose: str) -> None:
        """See `aside`; for as long as its check takes then, there is one more than there are threads."""
        with self._lock:
            _count_down(self._aside, whose)
            self._busy[whose] += 1

    def _start_next(self) -> None:
        if turn := self._next():
            self._pool.submit(self._work, *turn)

    def _next(self) -> tuple[str, "Future[Any]", Callable[[], Any]] | None:
        """Whose turn it is, and what is to be done; None if there is nobody who may have a thread. Under the lock."""
        if self._busy.total() >= self._threads:
            return None
        may = [whose for whose in self._waiting if self._busy[whose] < self._most]
        if not may:
            return None
        whose = min(may, key=lambda name: self._busy[name])
        queue = self._waiting.pop(whose)
        future, work = queue.popleft()
        if queue:
            self._waiting[whose] = queue
        self._busy[whose] += 1
        return whose, future, work

    def _work(self, whose: str, future: "Future[Any]", work: Callable[[], Any]) -> None:
        turn: tuple[str, Future[Any], Callable[[], Any]] | None = (whose, future, work)
        while turn:
            whose, future, work = turn
            _here.threads, _here.whose = self, whose
            _do(future, work)
            with self._lock:
                _count_down(self._busy, whose)
                turn = self._next()


def _count_down(counter: Counter[str], whose: str) -> None:
    counter[whose] -= 1
    if not counter[whose]:
        del counter[whose]


def _do(future: "Future[Any]", work: Callable[[], Any]) -> None:
    try:
        done = work()
    except BaseException as error:  # noqa: BLE001 - it is the caller's, who asks the future
        future.set_exception(error)
    else:
        future.set_result(done)
