import threading
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial

import pytest

from construir_ftp.intake.check_threads import CheckThreads

LONG_S = 60.0


class Place:
    """Work that is there until it is let go."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.may_end.wait(LONG_S)
        return "done"


@pytest.fixture
def threads() -> Iterator[CheckThreads]:
    threads = CheckThreads(4)
    yield threads
    threads.shutdown()


def test_one_contributor_has_half_of_the_threads_and_another_finds_one(threads: CheckThreads) -> None:
    many = [Place() for _ in range(10)]
    futures: list[Future[str]] = [threads.submit("alice", place) for place in many]
    other = threads.submit("bob", lambda: "bob's")
    assert other.result(LONG_S) == "bob's"
    assert [place.begun.is_set() for place in many].count(True) <= 2
    for place in many:
        place.may_end.set()
    assert [future.result(LONG_S) for future in futures] == ["done"] * 10


def test_each_contributors_work_is_done_in_its_order(threads: CheckThreads) -> None:
    done: list[int] = []
    lock = threading.Lock()

    def note(number: int) -> None:
        with lock:
            done.append(number)

    first, second = Place(), Place()
    held = [threads.submit("alice", first), threads.submit("alice", second)]
    later = [threads.submit("alice", partial(note, number)) for number in range(50)]
    first.may_end.set()
    for future in later:
        future.result(LONG_S)
    assert done == list(range(50))
    second.may_end.set()
    for held_one in held:
        held_one.result(LONG_S)


def test_error_is_the_asker_s_and_the_thread_goes_on(threads: CheckThreads) -> None:
    def fail() -> None:
        raise ValueError("on purpose")

    failed = [threads.submit("alice", fail) for _ in range(10)]
    assert all(isinstance(future.exception(LONG_S), ValueError) for future in failed)
    assert threads.submit("alice", lambda: 1).result(LONG_S) == 1


def test_all_that_waits_is_done_before_the_threads_end() -> None:
    threads = CheckThreads(1)
    place = Place()
    futures = [threads.submit(whose, place) for whose in ("alice", "bob", "alice")]
    place.may_end.set()
    threads.shutdown()
    assert [future.result(0) for future in futures] == ["done"] * 3
