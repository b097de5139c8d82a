"""Promises of turns: a command of each address in turn, a rate of each address, and nothing kept of who has left."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from construir_ftp.ftp.ioloop import Loop
from construir_ftp.ftp.turns import _MOST_ADDRESSES, BURST_S, Allowance, Turns

PLENTY = 1e9
NOTHING = pytest.approx(0, abs=1e-6)


@dataclass(eq=False)
class One:
    """A member with so many commands."""

    network: str
    name: str
    left: int
    heard: list[str] = field(repr=False)

    def take_turn(self) -> bool:
        """Say its name."""
        self.heard.append(self.name)
        self.left -= 1
        return self.left > 0


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


def run(loop: Loop) -> None:
    """Until nothing is left to be done."""
    while any(not task.cancelled for task in loop.sched._tasks):
        loop.sched.poll()


def test_addresses_take_turns_and_so_do_sessions_of_an_address(loop: Loop) -> None:
    turns, heard = Turns(loop, PLENTY), list[str]()
    for network, name in (("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1")):
        turns.line_up(One(network, name, 3, heard))
    run(loop)
    assert heard == ["a1", "b1", "c1", "a2", "b1", "c1", "a3", "b1", "c1", "a1", "a2", "a3", "a1", "a2", "a3"]


def test_member_has_one_turn_however_often_it_lines_up(loop: Loop) -> None:
    turns, heard = Turns(loop, PLENTY), list[str]()
    one = One("a", "a1", 1, heard)
    turns.line_up(one)
    turns.line_up(one)
    assert turns.has(one)
    run(loop)
    assert heard == ["a1"]
    assert not turns.has(one)


def test_member_that_has_left_has_no_turn_and_leaves_no_timer(loop: Loop) -> None:
    turns, heard = Turns(loop, PLENTY), list[str]()
    one, other = One("a", "a1", 1, heard), One("a", "a2", 1, heard)
    turns.line_up(one)
    turns.line_up(other)
    turns.leave(one)
    run(loop)
    assert heard == ["a2"]
    turns.line_up(one)
    turns.leave(one)
    turns.leave(one)
    assert all(task.cancelled for task in loop.sched._tasks)
    assert not turns._ready
    assert not turns._resting


def test_address_over_its_rate_rests_while_others_go_on_and_then_gets_the_rest(loop: Loop) -> None:
    rate = 100
    turns, heard = Turns(loop, rate), list[str]()
    turns.line_up(One("a", "a1", int(rate * BURST_S) + 20, heard))
    loop.sched.poll()
    while turns._ready:
        loop.sched.poll()
    assert rate * BURST_S <= len(heard) < rate * BURST_S + 20, "the rest has to wait"
    turns.line_up(One("b", "b1", 5, heard))
    turns.line_up(One("a", "a2", 1, heard))
    while "b" in turns._ready:
        loop.sched.poll()
    assert heard.count("b1") == 5
    run(loop)
    assert (heard.count("a1"), heard.count("a2")) == (rate * BURST_S + 20, 1)


def test_turns_are_interrupted_after_some_milliseconds_so_that_connections_are_served(loop: Loop) -> None:
    turns, heard = Turns(loop, PLENTY), list[str]()
    turns.line_up(One("a", "a1", 10**6, heard))
    loop.sched.poll()
    assert 0 < len(heard) < 10**6
    turns.leave(next(iter(turns._ready["a"])))


def test_allowance_is_a_burst_and_then_the_rate_and_comes_back_with_time() -> None:
    allowance = Allowance(10)
    burst = int(10 * BURST_S)
    for _ in range(burst):
        assert allowance.wait_s("a", 0) == NOTHING
        allowance.use("a", 0)
    assert allowance.wait_s("a", 0) == pytest.approx(0.1)
    assert allowance.wait_s("b", 0) == NOTHING
    assert allowance.wait_s("a", 0.2) == NOTHING
    for _ in range(2):
        allowance.use("a", 0.2)
    assert allowance.wait_s("a", 0.2) == pytest.approx(0.1)
    for _ in range(burst):
        assert allowance.wait_s("a", 1000) == NOTHING, "the burst is there again, and no more than it"
        allowance.use("a", 1000)
    assert allowance.wait_s("a", 1000) == pytest.approx(0.1)


def test_what_addresses_have_used_is_bounded_however_many_there_are() -> None:
    allowance = Allowance(10)
    for number in range(_MOST_ADDRESSES + 100):
        allowance.use(str(number), 0)
    assert len(allowance._whole_s) == _MOST_ADDRESSES
