"""client.sent: what this computer remembers of what it has sent; nothing depends on it but convenience."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from construir_ftp.client.history import Memory, Sent, matching, newest
from construir_ftp.errors import ConstruirError
from construir_ftp.pack.pack import Wrapping

FIRST, SECOND = "20261122T104102Z-7f3a-hello", "20261122T104103Z-7f3a-hello-world"


def job(job_id: str) -> Sent:
    return Sent(
        id=job_id,
        server="ftp://alice@here",
        source="/src/hello",
        wrapping=Wrapping(space_bytes=1, keep_times=True),
        sha256="0",
        time=datetime(2026, 11, 22, tzinfo=UTC),
    )


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "state")


def test_a_job_is_found_again_by_its_id_its_beginning_or_its_name(memory: Memory) -> None:
    for job_id in (SECOND, FIRST):
        memory.remember(job(job_id))
    assert list(memory.all()) == [job(FIRST), job(SECOND)]
    assert memory.find(FIRST) == memory.find("20261122T104102") == memory.find("hello") == [job(FIRST)]
    assert memory.find("2026") == [job(FIRST), job(SECOND)]
    assert memory.find("nothing") == memory.find("world") == []


def test_an_id_counts_before_what_it_begins() -> None:
    assert matching("a", ["ab", "a"]) == ["a"]


def test_of_several_jobs_the_newest_is_meant_and_told() -> None:
    told: list[str] = []
    assert newest("hello", [FIRST], told.append) == FIRST
    assert told == []
    assert newest("2026", [FIRST, SECOND], told.append) == SECOND
    assert told == [f"2026 may be any of 2 jobs that were sent from here; the newest is meant: {SECOND}"]


def test_what_was_begun_is_continued_only_if_it_is_the_same_for_the_same_server(memory: Memory) -> None:
    assert not memory.begin("ftp://here", "x.img", "digest")
    assert memory.begin("ftp://here", "x.img", "digest")
    assert not memory.begin("ftp://there", "x.img", "digest")
    assert not memory.begin("ftp://here", "x.img", "another")
    assert memory.begin("ftp://here", "x.img", "another")
    memory.end("ftp://here", "x.img")
    assert not memory.begin("ftp://here", "x.img", "another")


def test_the_oldest_are_forgotten(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("construir_ftp.client.history._MOST_REMEMBERED", 2)
    for number in range(4):
        memory.remember(job(f"2026-{number}-x"))
    assert [kept.id for kept in memory.all()] == ["2026-2-x", "2026-3-x"]


def test_what_cant_be_read_is_as_if_it_were_not_there(memory: Memory, tmp_path: Path) -> None:
    memory.remember(job(FIRST))
    for name, content in {"a.json": b"", "b.json": b"[" * 9999, "c.json": b'{"id": 1}', "d.json": b"\xff"}.items():
        (tmp_path / "state/sent" / name).write_bytes(content)
    (tmp_path / "state/sent/e.json").mkdir()
    assert list(memory.all()) == [job(FIRST)]


def test_a_hostile_id_becomes_no_path_and_a_bad_place_is_named(memory: Memory, tmp_path: Path) -> None:
    for job_id in ("../../x", "/etc/x", ".x", "", "x\n"):
        with pytest.raises(ConstruirError):
            memory.remember(job(job_id))
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(ConstruirError, match="will not remember"):
        memory.remember(job(FIRST))
    assert not memory.begin("ftp://here", "x", "digest")
