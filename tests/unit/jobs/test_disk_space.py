"""Promises of room: uploads never take what a running job, or the next one, may need."""

from pathlib import Path

import msgspec
import pytest

from construir_ftp import files
from construir_ftp.errors import RefusedError
from construir_ftp.jobs.disk_space import Room
from construir_ftp.jobs.result import Result, encode
from construir_ftp.jobs.spool import Job, Record, Spool
from tests.support import records, smalldisk

MIB = 2**20


def record(image_bytes: int, after: tuple[str, ...] = ()) -> Record:
    return records.record(codec="gzip", image_bytes=image_bytes, after=list(after))


def put(spool: Spool, state: str, name: str, image_bytes: int) -> Job:
    spool.claims.begin()
    job = Job((spool.claims.path if state == "running" else spool.state(state)) / name)
    job.path.mkdir()
    job.upload.touch()
    (job.path / "job.json").write_bytes(msgspec.json.encode(record(image_bytes)))
    return job


def finish(spool: Spool, name: str, image_bytes: int) -> None:
    """A result with an image of that size."""
    done = spool.state("done") / name
    done.mkdir()
    told = Result(status="success", image_bytes=image_bytes)
    (done / "result.json").write_bytes(encode(told))


@pytest.fixture
def place(tmp_path: Path) -> Spool:
    return Spool.prepare(tmp_path / "spool")


@pytest.fixture
def tenth(place: Spool) -> int:
    """A tenth of what is free: so much that what other programs write meanwhile doesn't matter."""
    return files.free_bytes(place.path) // 10


def in_tenths(room: Room, tenth: int) -> int:
    return round(room.for_uploads() / tenth)


def test_min_free_is_kept(place: Spool, tenth: int) -> None:
    assert in_tenths(Room(place, 0), tenth) == 10
    assert in_tenths(Room(place, 4 * tenth), tenth) == 6
    assert Room(place, 20 * tenth).for_uploads() < 0


def test_room_is_kept_for_disk_and_result_of_each_running_job(place: Spool, tenth: int) -> None:
    put(place, "running", "a", tenth)
    put(place, "running", "b", 2 * tenth)
    assert in_tenths(Room(place, 0), tenth) == 4
    put(place, "running", "c", 5 * tenth)
    assert Room(place, 0).for_uploads() < 0


def test_room_is_kept_for_the_waiting_job_that_needs_most(place: Spool, tenth: int) -> None:
    put(place, "queue", "a", tenth)
    put(place, "queue", "b", 3 * tenth)
    put(place, "queue", "c", tenth)
    assert in_tenths(Room(place, 0), tenth) == 4


def test_what_a_running_job_has_written_is_not_kept_for_it_again(place: Spool) -> None:
    job = put(place, "running", "a", 8 * MIB)
    room = Room(place, 0)
    kept_before = files.free_bytes(place.path) - room.for_uploads()
    job.disk.write_bytes(b"x" * 8 * MIB)
    (job.path / "hello.img.gz").write_bytes(b"x" * 3 * MIB)
    files.fsync(job.disk)
    files.fsync(job.path / "hello.img.gz")
    kept = files.free_bytes(place.path) - room.for_uploads()
    assert kept_before == pytest.approx(16 * MIB, abs=4 * MIB)
    assert kept == pytest.approx(5 * MIB, abs=4 * MIB)


def test_disk_that_was_made_larger_than_it_came_counts_as_it_is(place: Spool, tenth: int) -> None:
    job = put(place, "running", "a", MIB)
    with job.disk.open("xb") as file:
        file.truncate(3 * tenth)
    assert in_tenths(Room(place, 0), tenth) == 4


def test_damaged_ticket_keeps_nothing_and_stops_nobody(place: Spool, tenth: int) -> None:
    for state in ("queue", "running"):
        (put(place, state, "a", 20 * tenth).path / "job.json").write_bytes(b"{")
    assert in_tenths(Room(place, 0), tenth) == 10
    assert Room(place, 0).lets_start("a")


def test_job_that_needs_more_than_there_is_is_refused_with_the_remedy(place: Spool, tenth: int) -> None:
    Room(place, 0).check(record(4 * tenth))
    with pytest.raises(RefusedError, match=r"no room now for what an image of .*try later") as refused:
        Room(place, 0).check(record(6 * tenth))
    assert refused.value.reply == 452
    put(place, "running", "a", 2 * tenth)
    with pytest.raises(RefusedError):
        Room(place, 0).check(record(4 * tenth))


def test_job_is_started_beside_others_only_with_room_for_all_it_may_need(place: Spool, tenth: int) -> None:
    put(place, "queue", "small", tenth)
    put(place, "queue", "large", 4 * tenth)
    room = Room(place, 0)
    assert room.lets_start("large")
    running = put(place, "running", "a", 2 * tenth)
    assert room.lets_start("small")
    assert not room.lets_start("large")
    place.delete(running)
    assert room.lets_start("large")


def test_job_is_started_alone_whatever_it_needs_while_min_free_is_kept(place: Spool, tenth: int) -> None:
    put(place, "queue", "huge", 100 * tenth)
    assert Room(place, 9 * tenth).lets_start("huge")
    assert not Room(place, 11 * tenth).lets_start("huge")


def test_count_of_an_upload_under_way_is_renewed(place: Spool, tenth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("construir_ftp.jobs.disk_space._COUNTED_S", 0.0)
    room = Room(place, 0)
    assert round(room.for_more() / tenth) == 10
    put(place, "running", "a", tenth)
    assert round(room.for_more() / tenth) == 8


# Uploads come as long as they are let in; then everything that may still be written for the jobs, is.
_FILL = """
import sys
from pathlib import Path
from construir_ftp.jobs.disk_space import Room
from construir_ftp.jobs.spool import Spool
from tests.unit.jobs.test_disk_space import MIB, put

place = Spool.prepare(Path(sys.argv[1]) / "spool")
running = put(place, "running", "a", 5 * MIB)
waiting = put(place, "queue", "b", 4 * MIB)
room, taken = Room(place, MIB), 0
while room.for_uploads() >= MIB:
    (place.state("incoming") / str(taken)).write_bytes(bytes(MIB))
    taken += 1
running.disk.write_bytes(b"x" * 5 * MIB)
(running.path / "hello.img.gz").write_bytes(b"x" * 5 * MIB)
place.delete(running)
waiting.disk.write_bytes(b"x" * 4 * MIB)
(waiting.path / "hello.img.gz").write_bytes(b"x" * 4 * MIB)
print(taken)
"""


def test_disk_full_of_uploads_still_holds_all_that_jobs_write(tmp_path: Path) -> None:
    taken = int(smalldisk.run(tmp_path / "disk", 32 * MIB, _FILL))
    assert 8 <= taken <= 14, "of 32 MiB, 10 + 8 + 1 are kept"


def test_job_whose_results_find_no_room_beside_others_is_passed_by_until_nothing_runs(place: Spool, tenth: int) -> None:
    finish(place, "earlier", 8 * tenth)
    wants = record(MIB, after=("earlier",))
    plain = record(MIB)
    finds_room = Room(place, 0).for_results()
    assert (finds_room(wants), finds_room(plain), finds_room(None)) == (True, True, True)
    put(place, "running", "other", 2 * tenth)
    finds_room = Room(place, 0).for_results()
    assert (finds_room(wants), finds_room(plain), finds_room(None)) == (False, True, True)


def test_room_is_kept_for_the_results_of_a_running_job_until_they_are_unpacked(place: Spool, tenth: int) -> None:
    finish(place, "earlier", 4 * tenth)
    job = put(place, "running", "wants", tenth)
    wants = record(tenth, after=("earlier",))
    (job.path / "job.json").write_bytes(msgspec.json.encode(wants))
    assert in_tenths(Room(place, 0), tenth) == 4
    (job.path / "output.log").touch()
    assert in_tenths(Room(place, 0), tenth) == 8
