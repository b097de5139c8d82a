"""Promises of janitor: the right results go, in the right order, and a wrong clock never empties done/."""

import itertools
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from construir_ftp import files, process
from construir_ftp.appliance import janitor
from construir_ftp.appliance.clock import Clock
from construir_ftp.appliance.janitor import Janitor
from construir_ftp.config import JanitorSection
from construir_ftp.errors import CommandError
from construir_ftp.jobs import names
from construir_ftp.jobs.result import Result, encode
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.units import Duration, Size
from tests.support.records import NOON, record

DAY = timedelta(days=1)
LONG_S = 60.0
NOTHING_FREE = Size(0)

# Wide enough to let everything pass; each test narrows what it is about.
WIDE = JanitorSection(
    every=Duration(600),
    max_age=Duration(30 * 86400),
    max_total=Size(2**50),
    max_results=10**6,
    keep_newest=0,
    incoming_age=Duration(6 * 3600),
)


def limits(
    *,
    every: float = WIDE.every,
    max_age_d: float = 30,
    max_total: int = WIDE.max_total,
    max_results: int = WIDE.max_results,
    keep_newest: int = 0,
) -> JanitorSection:
    return JanitorSection(
        every=Duration(every),
        max_age=Duration(max_age_d * 86400),
        max_total=Size(max_total),
        max_results=max_results,
        keep_newest=keep_newest,
        incoming_age=WIDE.incoming_age,
    )


@pytest.fixture
def place(tmp_path: Path) -> Spool:
    return Spool.prepare(tmp_path / "spool")


numbers = itertools.count()


def publish(place: Spool, age_d: float, contributor: str = "ann", size_bytes: int = 0) -> str:
    """A result of so many days before NOON, with so many bytes in it; its id."""
    published = NOON - timedelta(days=age_d)
    job = Job(place.state("done") / names.new_id(f"job{next(numbers)}", published))
    job.path.mkdir()
    (job.path / "output.log").write_bytes(b"x" * size_bytes)
    files.fsync(job.path / "output.log")  # blocks count once they are written
    result = Result(id=job.id, contributor=contributor, status="success", reason="", published=published)
    job.result.write_bytes(encode(result))
    return job.id


def left(place: Spool) -> set[str]:
    return {job.id for job in place.jobs("done")}


def to_go(place: Spool, section: JanitorSection, min_free: int = 0, now: datetime = NOON) -> list[tuple[str, str]]:
    return [(job.id, reason) for job, reason in janitor.plan(place, section, Size(min_free), now)]


# -- what goes, and why ----------------------------------------------------------------------------------------


def test_nothing_goes_while_every_limit_is_kept(place: Spool) -> None:
    for age_d in range(20):
        publish(place, age_d)
    assert to_go(place, WIDE) == []
    assert to_go(Spool.prepare(place.path.parent / "empty"), WIDE) == []


def test_results_older_than_max_age_go_oldest_first(place: Spool) -> None:
    old = [publish(place, age_d) for age_d in (90, 31, 30.1)]
    for age_d in (29.9, 1, 0, -1):
        publish(place, age_d)
    assert to_go(place, WIDE) == [(id_, "older than 30 days") for id_ in old]


def test_results_beyond_max_results_go_oldest_first(place: Spool) -> None:
    published = [publish(place, age_d) for age_d in (5, 4, 3, 2, 1)]
    assert to_go(place, limits(max_results=3)) == [(id_, "more than 3 results") for id_ in published[:2]]


def test_results_beyond_max_total_go_oldest_first_and_no_more_than_needed(place: Spool) -> None:
    published = [publish(place, age_d, size_bytes=2**20) for age_d in (5, 4, 3, 2, 1)]
    assert to_go(place, limits(max_total=3 * 2**20 + 2**19)) == [
        (id_, "results take more than 3.5 MiB") for id_ in published[:2]
    ]


def test_results_go_until_the_floor_of_free_space_is_kept(place: Spool) -> None:
    published = [publish(place, age_d, size_bytes=64 * 2**20) for age_d in (4, 3, 2, 1)]
    # Others write to the same file system meanwhile; half a result is far more than they do.
    floor = files.free_bytes(place.path) + (64 + 32) * 2**20
    going = to_go(place, WIDE, floor)
    assert [id_ for id_, _ in going] == published[:2]
    assert going[0][1].endswith(" MiB free")


def test_what_goes_for_its_age_counts_towards_the_other_limits(place: Spool) -> None:
    old = publish(place, 40)
    for age_d in (3, 2, 1):
        publish(place, age_d)
    assert to_go(place, limits(max_results=3)) == [(old, "older than 30 days")]


def test_room_made_by_age_and_by_abandoned_uploads_counts_towards_the_floor(place: Spool) -> None:
    old = publish(place, 40, size_bytes=64 * 2**20)
    newer = [publish(place, age_d, size_bytes=2**20) for age_d in (3, 2, 1)]
    upload = place.receive()
    upload.upload.write_bytes(b"x" * 64 * 2**20)
    files.fsync(upload.upload)
    os.utime(upload.upload, (0, 0))
    os.utime(upload.path, (0, 0))
    free = files.free_bytes(place.path)
    assert [id_ for id_, _ in to_go(place, WIDE, free + 96 * 2**20)] == [upload.id, old]
    assert [id_ for id_, _ in to_go(place, WIDE, free + 160 * 2**20)] == [upload.id, old, *newer]


def test_plan_touches_nothing(place: Spool) -> None:
    published = {publish(place, 40), publish(place, 1)}
    (place.state("trash") / "left").mkdir()
    janitor.plan(place, limits(max_results=1), NOTHING_FREE, NOON)
    janitor.prune(place, limits(max_results=1), NOTHING_FREE, NOON, dry_run=True)
    assert left(place) == published
    assert (place.state("trash") / "left").exists()


def test_prune_deletes_exactly_what_plan_says(place: Spool) -> None:
    publish(place, 40)
    kept = {publish(place, 2), publish(place, 1)}
    planned = to_go(place, WIDE)
    pruned = janitor.prune(place, WIDE, NOTHING_FREE, NOON, dry_run=False)
    assert [(job.id, reason) for job, reason in pruned] == planned != []
    assert left(place) == kept
    assert place.jobs("trash") == []


def test_artifacts_count_and_go_with_their_result(place: Spool) -> None:
    for age_d in (2, 1):
        artifacts = place.state("done") / publish(place, age_d) / "artifacts"
        artifacts.mkdir()
        (artifacts / "hello.deb").write_bytes(b"x" * 2**20)
        files.fsync(artifacts / "hello.deb")
    janitor.prune(place, limits(max_total=3 * 2**19), NOTHING_FREE, NOON, dry_run=False)
    assert [path.parts[-2:] for path in place.state("done").rglob("*.deb")] == [("artifacts", "hello.deb")]
    assert list(place.state("trash").iterdir()) == []


def test_waiting_and_running_jobs_are_never_touched(place: Spool) -> None:
    for state in ("queue", "running/local.00000000", "layers"):
        (place.state(state) / "20000101T000000Z-0000-old").mkdir(parents=True)
    publish(place, 40)
    publish(place, 1)
    janitor.prune(place, limits(max_results=1, max_total=0), Size(2**60), NOON, dry_run=False)
    assert left(place) == set()
    assert all(len(place.jobs(state)) == 1 for state in ("queue", "running", "layers"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ages=st.lists(st.tuples(st.integers(0, 31), st.sampled_from(["ann", "bob"])), max_size=8),
    most=st.integers(1, 9),
    keep_newest=st.integers(0, 3),
)
def test_after_pruning_the_limits_are_kept_and_pruning_again_finds_nothing(
    tmp_path: Path, ages: list[tuple[int, str]], most: int, keep_newest: int
) -> None:
    place = Spool.prepare(tmp_path / os.urandom(8).hex())
    for age_d, contributor in ages:
        publish(place, age_d, contributor)
    section = limits(max_results=most, keep_newest=keep_newest)
    gone = janitor.prune(place, section, NOTHING_FREE, NOON, dry_run=False)
    assert len(left(place)) == len(ages) - len(gone) <= most
    assert janitor.prune(place, section, NOTHING_FREE, NOON, dry_run=False) == []


# -- the newest of each contributor ----------------------------------------------------------------------------


def test_the_newest_of_each_contributor_never_go_for_their_age(place: Spool) -> None:
    gone = publish(place, 90, "bob")
    publish(place, 80, "bob")
    for age_d in range(5):
        publish(place, age_d, "ann")
    assert to_go(place, limits(keep_newest=1)) == [(gone, "older than 30 days")]


def test_the_newest_of_each_contributor_go_last_under_pressure(place: Spool) -> None:
    bobs = publish(place, 20, "bob")
    anns = [publish(place, age_d, "ann") for age_d in (5, 4, 3)]
    assert [id_ for id_, _ in to_go(place, limits(keep_newest=1, max_results=2))] == anns[:2]
    assert [id_ for id_, _ in to_go(place, limits(keep_newest=1, max_results=1))] == [*anns[:2], bobs]
    assert [id_ for id_, _ in to_go(place, limits(keep_newest=2, max_results=3))] == anns[:1]
    assert [id_ for id_, _ in to_go(place, limits(keep_newest=1, max_total=0))] == [*anns[:2], bobs, anns[2]]


def test_the_newest_stay_if_even_their_end_would_not_restore_the_floor(place: Spool) -> None:
    old, newest = publish(place, 2), publish(place, 1)
    assert [id_ for id_, _ in to_go(place, limits(keep_newest=1), 2**60)] == [old]
    assert [id_ for id_, _ in to_go(place, limits(keep_newest=0), 2**60)] == [old, newest]


def test_the_newest_go_if_that_restores_the_floor(place: Spool) -> None:
    old, newest = publish(place, 2, size_bytes=64 * 2**20), publish(place, 1, size_bytes=64 * 2**20)
    floor = files.free_bytes(place.path) + (64 + 32) * 2**20
    assert [id_ for id_, _ in to_go(place, limits(keep_newest=1), floor)] == [old, newest]


# -- what a result says of itself ------------------------------------------------------------------------------


def test_a_damaged_result_counts_by_its_ticket(place: Spool) -> None:
    id_ = publish(place, 1)
    others = [publish(place, 10), publish(place, 5)]
    job = Job(place.state("done") / id_)
    job.result.write_bytes(b"\0")
    known = record("bob", received=NOON - timedelta(days=20))
    (job.path / "job.json").write_bytes(msgspec.json.encode(known))
    assert [found for found, _ in to_go(place, limits(max_results=2))] == [id_]
    assert [found for found, _ in to_go(place, limits(max_results=1, keep_newest=1))] == [others[0], id_]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b'{"contributor": 5, "published": "2026-11-22T12:00:00Z"}',
        b'{"contributor": "ann", "published": "2026-11-22T12:00:00"}',
        b'{"contributor": "ann", "published": "99999-01-01T00:00:00Z"}',
        b'{"contributor": "\xff", "published": "2026-11-22T12:00:00Z"}',
        b"[" * 100_000,
    ],
)
def test_a_result_that_says_nothing_goes_by_its_directorys_time_and_is_nobodys_newest(
    place: Spool, damage: bytes
) -> None:
    id_ = publish(place, 1)
    publish(place, 10)
    path = place.state("done") / id_
    (path / "result.json").write_bytes(damage)
    os.utime(path, (0, (NOON - 90 * DAY).timestamp()))
    publish(place, 5)
    assert to_go(place, limits(keep_newest=1)) == [(id_, "older than 30 days")]


def test_an_empty_result_directory_can_be_pruned(place: Spool) -> None:
    (place.state("done") / "20000101T000000Z-0000-empty").mkdir()
    os.utime(place.state("done") / "20000101T000000Z-0000-empty", (0, 0))
    publish(place, 1)
    assert len(janitor.prune(place, WIDE, NOTHING_FREE, NOON, dry_run=False)) == 1


def test_a_result_is_read_and_measured_once(place: Spool) -> None:
    old, new = publish(place, 29), publish(place, 1)
    keeper = Janitor(place, WIDE, NOTHING_FREE)
    assert keeper.tidy(NOON, 1000.0) == []
    for id_ in (old, new):
        (place.state("done") / id_ / "result.json").write_bytes(b"")  # would count by the directory's time: now
    gone = keeper.tidy(NOON + 1.5 * DAY, 1000.0 + 1.5 * 86400)
    assert [job.id for job, _ in gone] == [old]


def test_what_is_remembered_of_deleted_results_is_forgotten(place: Spool) -> None:
    shelf = janitor.Shelf()
    for age_d in range(3):
        publish(place, age_d)
    assert len(shelf.results(place)) == 3
    for job in place.jobs("done")[:2]:
        place.delete(job)
    assert len(shelf.results(place)) == len(shelf._facts) == 1


# -- what can't be deleted -------------------------------------------------------------------------------------


@contextmanager
def undeletable(directory: Path) -> Iterator[None]:
    """A directory that can't be moved meanwhile, by root neither."""
    if os.geteuid() != 0:
        directory.chmod(0o500)  # moving a directory to another parent needs write permission on itself
        yield
        directory.chmod(0o700)
        return
    try:
        process.run(["chattr", "+i", directory], timeout_s=LONG_S)
    except CommandError as error:
        pytest.skip(f"no way to make a directory that root can't delete: {error}")
    try:
        yield
    finally:
        process.run(["chattr", "-i", directory], timeout_s=LONG_S)


def test_one_undeletable_result_stops_no_other(place: Spool, caplog: pytest.LogCaptureFixture) -> None:
    old = [publish(place, age_d) for age_d in (90, 80, 70)]
    new = [publish(place, age_d) for age_d in (3, 2, 1)]
    with undeletable(place.state("done") / old[1]):
        gone = janitor.prune(place, WIDE, NOTHING_FREE, NOON, dry_run=False)
    assert [job.id for job, _ in gone] == [old[0], old[2]]
    assert left(place) == {old[1], *new}
    assert f"{old[1]} can't be deleted: " in caplog.text


# -- incoming and trash ----------------------------------------------------------------------------------------


def arrive(place: Spool, directory_age_h: float, file_age_h: float | None) -> str:
    job = place.receive()
    if file_age_h is not None:
        job.upload.write_bytes(b"part")
        os.utime(job.upload, (0, (NOON - timedelta(hours=file_age_h)).timestamp()))
    os.utime(job.path, (0, (NOON - timedelta(hours=directory_age_h)).timestamp()))
    return job.id


def test_uploads_nobody_finished_go_by_their_newest_modification(place: Spool) -> None:
    gone = {arrive(place, 7, 7), arrive(place, 7, None)}
    kept = {arrive(place, 7, 5), arrive(place, 5, 7), arrive(place, 5, None)}
    pruned = janitor.prune(place, WIDE, NOTHING_FREE, NOON, dry_run=False)
    assert {job.id for job, _ in pruned} == gone
    assert {reason for _, reason in pruned} == {"upload untouched for more than 6 hours"}
    assert {job.id for job in place.jobs("incoming")} == kept


def test_trash_is_emptied(place: Spool) -> None:
    (place.state("trash") / "left" / "below").mkdir(parents=True)
    janitor.prune(place, WIDE, NOTHING_FREE, NOON, dry_run=False)
    assert list(place.state("trash").iterdir()) == []


# -- clocks ----------------------------------------------------------------------------------------------------


def spread(place: Spool, count: int = 15) -> set[str]:
    """Results of an ordinary life: one every two days, the oldest 28 days old."""
    return {publish(place, 2.0 * number) for number in range(count)}


@pytest.mark.parametrize("jump", [31 * DAY, 365 * DAY, 12 * 365 * DAY])
def test_a_clock_that_jumped_ahead_before_a_start_deletes_nothing(place: Spool, jump: timedelta) -> None:
    published = spread(place)
    assert to_go(place, WIDE, now=NOON + jump) == []
    keeper = Janitor(place, WIDE, NOTHING_FREE)
    for minute in range(0, 6 * 60, 10):
        assert keeper.tidy(NOON + jump + timedelta(minutes=minute), 60.0 * minute) == []
    assert left(place) == published


def test_a_job_finished_after_the_jump_does_not_make_it_look_right(place: Spool) -> None:
    published = spread(place)
    keeper = Janitor(place, WIDE, NOTHING_FREE)
    assert keeper.tidy(NOON + 365 * DAY, 0.0) == []
    published |= {publish(place, -365 - number / 100) for number in range(30)}
    assert to_go(place, limits(max_results=100), now=NOON + 365 * DAY + 0.4 * DAY) != []  # looked at alone, it would
    assert keeper.tidy(NOON + 365 * DAY + timedelta(minutes=10), 600.0) == []
    assert left(place) == published


@pytest.mark.parametrize("jump", [5 * DAY, 365 * DAY])
def test_a_clock_that_jumps_ahead_between_two_runs_deletes_nothing(place: Spool, jump: timedelta) -> None:
    published = spread(place)
    keeper = Janitor(place, WIDE, NOTHING_FREE)
    assert keeper.tidy(NOON, 0.0) == []
    assert keeper.tidy(NOON + jump, 600.0) == []
    assert left(place) == published


def test_a_clock_put_right_again_deletes_nothing(place: Spool) -> None:
    published = spread(place)
    keeper = Janitor(place, WIDE, NOTHING_FREE)
    for now, uptime_s in [(NOON, 0.0), (NOON + 365 * DAY, 600.0), (NOON, 1200.0), (NOON, 1200.0 + 5 * 3600)]:
        assert keeper.tidy(now, uptime_s) == []
    assert left(place) == published


def test_a_clock_that_jumps_back_deletes_nothing_for_its_age(place: Spool) -> None:
    published = spread(place)
    keeper = Janitor(place, WIDE, NOTHING_FREE)
    assert keeper.tidy(NOON, 0.0) == []
    assert keeper.tidy(NOON - 3650 * DAY, 600.0) == []
    assert left(place) == published


def test_a_machine_that_was_off_for_three_months_prunes_after_six_steady_hours(place: Spool) -> None:
    published = spread(place)
    keeper = Janitor(place, WIDE, NOTHING_FREE)
    gone = 0
    for minute in range(0, 7 * 60, 10):
        gone += len(keeper.tidy(NOON + 90 * DAY + timedelta(minutes=minute), 60.0 * minute))
        assert gone == (0 if minute < 6 * 60 else len(published))
    assert left(place) == set()


def test_six_steady_hours_are_counted_from_the_last_jump(place: Spool) -> None:
    published = spread(place)
    keeper = Janitor(place, WIDE, NOTHING_FREE)
    for hour, skew in [(0, 0), (5, 100), (10, 200), (15, 200)]:
        assert keeper.tidy(NOON + skew * DAY + timedelta(hours=hour), 3600.0 * hour) == []
    assert left(place) == published
    assert len(keeper.tidy(NOON + 200 * DAY + timedelta(hours=16), 3600.0 * 16)) == len(published)


def test_a_long_life_deletes_each_result_in_its_time(place: Spool) -> None:
    spread(place)
    keeper = Janitor(place, WIDE, NOTHING_FREE)
    for day in range(40):
        keeper.tidy(NOON + day * DAY, 86400.0 * day)
        ages = [NOON + day * DAY - datetime.fromisoformat(published(job)) for job in place.jobs("done")]
        assert all(age <= 30 * DAY for age in ages)
        assert len(ages) == max(0, min(15, (30 - day) // 2 + 1))
    assert left(place) == set()


def published(job: Job) -> str:
    return str(json.loads(job.result.read_bytes())["published"])


def test_a_machine_off_over_the_weekend_prunes_at_once(place: Spool) -> None:
    spread(place)
    assert len(Janitor(place, WIDE, NOTHING_FREE).tidy(NOON + 4 * DAY, 10.0)) == 1


def test_slewing_and_sleep_are_no_jumps() -> None:
    clock = Clock()
    for step in range(100):
        # A clock that is slewed gains 500 ppm (adjtimex(2)); CLOCK_BOOTTIME goes on while the machine sleeps.
        now = NOON + timedelta(seconds=step * 3600 * 1.0005)
        assert clock.look(now, step * 3600.0, implausible=False)


def test_size_count_and_floor_need_no_clock(place: Spool) -> None:
    spread(place)
    keeper = Janitor(place, limits(max_results=5), NOTHING_FREE)
    assert len(keeper.tidy(NOON + 365 * DAY, 0.0)) == 10


def test_uploads_under_way_survive_a_jump_of_the_clock(place: Spool) -> None:
    arrive(place, 0, 0)
    keeper = Janitor(place, WIDE, NOTHING_FREE)
    assert keeper.tidy(NOON, 0.0) == []
    assert keeper.tidy(NOON + 365 * DAY, 600.0) == []


def test_doubt_and_its_end_are_logged_once_each(place: Spool, caplog: pytest.LogCaptureFixture) -> None:
    spread(place)
    keeper = Janitor(place, WIDE, NOTHING_FREE)
    for minute in range(0, 8 * 60, 10):
        keeper.tidy(NOON + 90 * DAY + timedelta(minutes=minute), 60.0 * minute)
    assert caplog.text.count("for six hours no result is deleted for its age") == 1
    assert caplog.text.count("the clock has been steady for six hours") == 1


# -- the schedule ----------------------------------------------------------------------------------------------


@contextmanager
def running(keeper: Janitor) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=keeper.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(LONG_S)
        assert not thread.is_alive()


def wait_until_gone(path: Path) -> None:
    pause = threading.Event()
    for _ in range(int(LONG_S / 0.01)):
        if not path.exists():
            return
        pause.wait(0.01)
    raise AssertionError(f"{path} is still there")


def trash(place: Spool, name: str) -> Path:
    path = place.state("trash") / name
    path.mkdir()
    return path


def test_run_prunes_at_once_then_on_schedule_and_stops_when_told(place: Spool) -> None:
    first = trash(place, "first")
    with running(Janitor(place, limits(every=0.05), NOTHING_FREE)):
        wait_until_gone(first)
        wait_until_gone(trash(place, "second"))
        wait_until_gone(trash(place, "third"))


def test_run_stops_at_once_however_long_the_pause(place: Spool) -> None:
    first = trash(place, "first")
    with running(Janitor(place, limits(every=50 * 365 * 86400), NOTHING_FREE)):
        wait_until_gone(first)


def test_a_run_that_fails_is_logged_and_the_next_one_comes(place: Spool, caplog: pytest.LogCaptureFixture) -> None:
    away = place.path / "away"
    place.state("done").rename(away)
    with running(Janitor(place, limits(every=0.05), NOTHING_FREE)):
        pause = threading.Event()
        for _ in range(int(LONG_S / 0.01)):
            if caplog.text.count("failed; the next try is in 0.05 s") >= 2:
                break
            pause.wait(0.01)
        else:
            raise AssertionError("not tried twice")
        assert any(record.levelno == logging.ERROR and record.exc_info for record in caplog.records)
        away.rename(place.state("done"))
        wait_until_gone(trash(place, "first"))


def test_a_wall_clock_put_back_by_a_year_does_not_stop_the_schedule(place: Spool) -> None:
    first = trash(place, "first")
    keeper = Janitor(place, limits(every=0.5), NOTHING_FREE)
    with running(keeper):
        wait_until_gone(first)
        (run,) = keeper.scheduler.jobs
        assert run.next_run is not None
        run.next_run += 365 * DAY  # what schedule makes of it: its next run is a year away
        wait_until_gone(trash(place, "second"))


def test_waiting_for_the_next_run_takes_no_processor_time(place: Spool) -> None:
    first = trash(place, "first")
    with running(Janitor(place, limits(every=3600), NOTHING_FREE)):
        wait_until_gone(first)
        before_s = time.process_time()
        threading.Event().wait(0.5)
        assert time.process_time() - before_s < 0.25


def test_two_janitors_do_not_share_a_schedule(place: Spool) -> None:
    one, two = (Janitor(place, WIDE, NOTHING_FREE) for _ in range(2))
    assert one.scheduler is not two.scheduler
    assert len(one.scheduler.jobs) == len(two.scheduler.jobs) == 1
