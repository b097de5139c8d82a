import threading
from collections.abc import Iterator
from concurrent import futures
from concurrent.futures import Future
from functools import partial

import pytest

from construir_ftp.errors import RefusedError
from construir_ftp.intake.check_threads import CheckThreads, aside

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
    asked: list[Future[str]] = [threads.submit("alice", place) for place in many]
    other = threads.submit("bob", lambda: "bob's")
    assert other.result(LONG_S) == "bob's"
    assert [place.begun.is_set() for place in many].count(True) <= 2
    for place in many:
        place.may_end.set()
    assert [future.result(LONG_S) for future in asked] == ["done"] * 10


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
    waiting = [threads.submit(whose, place) for whose in ("alice", "bob", "alice")]
    place.may_end.set()
    threads.shutdown()
    assert [future.result(0) for future in waiting] == ["done"] * 3


def test_a_check_that_steps_aside_keeps_no_other_one_from_a_thread(threads: CheckThreads) -> None:
    places = [Place() for _ in range(12)]

    def wait(place: Place) -> str:
        with aside():
            return place()

    waiting = [threads.submit(("alice", "bob")[n % 2], partial(wait, place)) for n, place in enumerate(places)]
    for place in places:
        assert place.begun.wait(LONG_S)
    assert [threads.submit(whose, lambda: 1).result(LONG_S) for whose in ("alice", "bob", "carol")] == [1, 1, 1]
    for place in places:
        place.may_end.set()
    assert [future.result(LONG_S) for future in waiting] == ["done"] * 12


def test_one_contributor_has_half_of_the_places_aside(threads: CheckThreads) -> None:
    places = [Place() for _ in range(9)]

    def wait(place: Place) -> str:
        with aside():
            return place()

    waiting = [threads.submit("alice", partial(wait, place)) for place in places]
    (refused,) = futures.wait(waiting, LONG_S, futures.FIRST_COMPLETED).done
    assert isinstance(refused.exception(), RefusedError)
    bobs = Place()
    other = threads.submit("bob", partial(wait, bobs))
    assert bobs.begun.wait(LONG_S)
    for place in (*places, bobs):
        place.may_end.set()
    assert [future.result(LONG_S) for future in (other, *waiting) if future is not refused] == ["done"] * 9


def test_what_is_aside_when_the_threads_are_to_end_is_done_and_so_is_what_waits_for_it() -> None:
    threads = CheckThreads(1)
    place = Place()

    def wait() -> str:
        with aside():
            return place()

    both = [threads.submit("alice", wait), threads.submit("bob", lambda: "bob's")]
    assert place.begun.wait(LONG_S)
    ending = threading.Thread(target=threads.shutdown)
    ending.start()
    place.may_end.set()
    ending.join(LONG_S)
    assert [future.result(0) for future in both] == ["done", "bob's"]
