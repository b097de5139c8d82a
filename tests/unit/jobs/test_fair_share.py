"""Promises of turns: whoever waits with one job waits for one job of others at most, whatever they have sent."""

import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from construir_ftp.jobs import fair_share, ipc
from construir_ftp.jobs.fair_share import Turns

CONTRIBUTORS = st.sampled_from(["ann", "bob", "cyd", ""])


def waiting(*contributors: str) -> list[tuple[str, str]]:
    return [(name, f"{number:04}-{name}") for number, name in enumerate(contributors)]


def test_who_has_fewer_jobs_running_is_next_whoever_had_the_last_turn() -> None:
    order = fair_share.order(waiting("ann", "ann", "bob"), ["ann", "ann"], ["ann", "bob"])
    assert list(order) == ["0002-bob", "0000-ann", "0001-ann"]


def test_who_had_no_turn_yet_is_before_who_had_one() -> None:
    assert next(fair_share.order(waiting("ann", "bob", "cyd"), [], ["cyd", "ann"])) == "0001-bob"


def test_oldest_job_is_first_where_nothing_else_tells_two_contributors_apart() -> None:
    assert next(fair_share.order(waiting("bob", "ann"), [], [])) == "0000-bob"


@given(st.lists(CONTRIBUTORS), st.lists(CONTRIBUTORS, max_size=4), st.lists(CONTRIBUTORS, unique=True))
def test_every_job_is_in_line_once_and_those_of_one_contributor_in_their_order(
    contributors: list[str], running: list[str], served: list[str]
) -> None:
    jobs = waiting(*contributors)
    line = list(fair_share.order(jobs, running, served))
    assert sorted(line) == sorted(job for _, job in jobs)
    for name in set(contributors):
        own = [job for owner, job in jobs if owner == name]
        assert [job for job in line if job in own] == own


@given(st.lists(CONTRIBUTORS), st.lists(CONTRIBUTORS, max_size=4), st.lists(CONTRIBUTORS, unique=True))
def test_first_in_line_is_found_without_the_line(
    contributors: list[str], running: list[str], served: list[str]
) -> None:
    jobs = waiting(*contributors)
    oldest = dict(reversed(jobs))
    assert fair_share.first(oldest, running, served) == next(fair_share.order(jobs, running, served), None)


@given(st.lists(CONTRIBUTORS, min_size=1), st.lists(CONTRIBUTORS, unique=True))
def test_nobody_has_a_second_turn_while_somebody_waits_for_the_first(
    contributors: list[str], served: list[str]
) -> None:
    owners = {job: name for name, job in waiting(*contributors)}
    had: Counter[str] = Counter()
    left = Counter(contributors)
    for job in fair_share.order(waiting(*contributors), [], served):
        assert had[owners[job]] == min(had[name] for name in left if left[name])
        had[owners[job]] += 1
        left[owners[job]] -= 1


def test_turns_are_remembered_in_their_order(tmp_path: Path) -> None:
    for name in ("ann", "bob", "ann", ""):
        Turns(tmp_path / "turns").note(name)
    assert Turns(tmp_path / "turns").served() == ["bob", "ann", ""]
    assert [path.name for path in tmp_path.iterdir()] == ["turns"]


def test_no_more_turns_are_remembered_than_anybody_needs(tmp_path: Path) -> None:
    for number in range(fair_share._REMEMBERED + 5):
        Turns(tmp_path / "turns").note(f"c{number}")
    assert len(Turns(tmp_path / "turns").served()) == fair_share._REMEMBERED


@pytest.mark.parametrize("damage", [b"", b"[1]", b'["ann"', b"\xff", b"[" * 100_000])
def test_damaged_memory_is_none(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "turns").write_bytes(damage)
    assert Turns(tmp_path / "turns").served() == []
    Turns(tmp_path / "turns").note("ann")
    assert Turns(tmp_path / "turns").served() == ["ann"]


def test_memory_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    Turns(tmp_path / "gone" / "turns").note("ann")
    assert Turns(tmp_path / "gone" / "turns").served() == []


# -- weights -----------------------------------------------------------------------------------------------------


def served_one_by_one(place: Path, weights: dict[str, int], jobs: list[tuple[str, str]], slots: int) -> list[str]:
    """Who has a machine, in the order of it, where so many run at once and the oldest ends first."""
    turns, ran, running = Turns(place / "turns"), list[str](), list[str]()
    while jobs:
        oldest = dict(reversed(jobs))
        following = fair_share.first(oldest, running, turns.served(), weights)
        owner = next(name for name, job in jobs if job == following)
        assert next(fair_share.order(jobs, running, turns.served(), weights, turns.begun())) == following
        jobs = [job for job in jobs if job[1] != following]
        turns.note(owner, weights.get(owner, 1))
        ran.append(owner)
        running = [*running, owner][-(slots - 1) :] if slots > 1 else []
    return ran


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_who_has_a_weight_has_so_many_turns_of_the_others(tmp_path: Path, slots: int) -> None:
    ran = served_one_by_one(tmp_path, {"ann": 3}, waiting(*["ann"] * 30, *["bob"] * 30, *["cyd"] * 30), slots)
    shares = Counter(ran[:40])
    assert shares["ann"] in range(22, 27)
    assert abs(shares["bob"] - shares["cyd"]) <= 1
    alone = served_one_by_one(tmp_path / "", {"ann": 3}, waiting(*["ann"] * 4), slots)
    assert alone == ["ann"] * 4


def test_turns_that_an_older_version_has_noted_count(tmp_path: Path) -> None:
    (tmp_path / "turns").write_text('["ann", "bob"]')
    turns = Turns(tmp_path / "turns")
    turns.note("ann", 2)
    assert (turns.served(), turns.begun()) == (["ann", "bob"], {"ann": 1})
    turns.note("ann", 2)
    assert (turns.served(), turns.begun()) == (["bob", "ann"], {})


# -- several nodes -----------------------------------------------------------------------------------------------


def test_two_nodes_do_not_choose_at_once_and_one_that_stands_still_stops_nobody(tmp_path: Path) -> None:
    chosen: list[str] = []

    def choose(name: str) -> None:
        with Turns(tmp_path / "turns").held():
            chosen.append(name)
            time.sleep(0.1)
            chosen.append(name)

    others = [threading.Thread(target=choose, args=(name,)) for name in ("one", "two")]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join()
    assert chosen in (["one", "one", "two", "two"], ["two", "two", "one", "one"])
    with ipc.hold(tmp_path / "turns.lock"):
        choose("late")
    assert chosen[-1] == "late"
