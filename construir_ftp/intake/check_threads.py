"""Threads in which uploads are checked: of those that wait for one, the contributor's that has the fewest is next.

A check may take minutes, and a thread waits for it. So one contributor has half of the threads at most, however many
uploads he sends at once: another one's upload finds a thread.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class CheckThreads:
    """So many threads. Safe to use from several."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "check")
        self._threads, self._most = threads, max(1, threads // 2)
        self._lock = threading.Lock()
        # Whoever had a turn comes last.
        self._waiting: dict[str, deque[tuple[Future[Any], Callable[[], Any]]]] = {}
        self._busy: Counter[str] = Counter()

    def submit(self, whose: str, work: Callable[[], T]) -> "Future[T]":
        """Have a thread do a contributor's work; does not wait."""
        future: Future[T] = Future()
        with self._lock:
            self._waiting.setdefault(whose, deque()).append((future, work))
            if self._busy.total() < self._threads and (turn := self._next()):
                self._pool.submit(self._work, *turn)
        return future

    def shutdown(self) -> None:
        """Wait until all work is done."""
        self._pool.shutdown()

    def _next(self) -> tuple[str, "Future[Any]", Callable[[], Any]] | None:
        """Whose turn it is, and what is to be done; None if there is nobody who may have a thread. Under the lock."""
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
            _do(future, work)
            with self._lock:
                self._busy[whose] -= 1
                if not self._busy[whose]:
                    del self._busy[whose]
                turn = self._next()


def _do(future: "Future[Any]", work: Callable[[], Any]) -> None:
    try:
        done = work()
    except BaseException as error:  # noqa: BLE001 - it is the caller's, who asks the future
        future.set_exception(error)
    else:
        future.set_result(done)
