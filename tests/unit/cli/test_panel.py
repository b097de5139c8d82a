"""What `construir top` draws: within any terminal, whatever jobs are called; and as plain lines."""

import io
from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from construir_ftp.cli.panel import SORTS, Panel, Scene, plain
from construir_ftp.jobs import board
from construir_ftp.jobs.board import Board, Line
from construir_ftp.jobs.status import RunningJob, Summary

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def done(name: str, status: str = "success", contributor: str = "alice", why: str = "") -> Line:
    return Line(id=name, state="done", contributor=contributor, since=NOON, took_s=65.0, status=status, why=why)


def scene(running: list[str], queue: list[str], ended: list[Line], sort: str = "time", problem: str = "") -> Scene:
    summary = Summary(
        time=NOON,
        slots=2,
        accelerator="kvm",
        why="every machine is busy" if queue else "",
        running=[RunningJob(name, NOON - timedelta(seconds=3723)) for name in running],
        waiting=len(queue),
        queue=queue,
        free_bytes=5 * 2**30,
        kept_free_bytes=2**31,
    )
    return Scene(Board(summary=summary, lines=[*board.live(summary, {}), *ended]), "here", sort, problem, NOON)


def drawn(what: Scene, width: int, height: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, height=height, color_system=None).print(Panel(what), end="")
    return out.getvalue().split("\n")


def test_a_screen_of_80_columns_says_what_runs_waits_and_is_done() -> None:
    lines = drawn(scene(["a-job"], ["b-job"], [done("c-job", "failed, 2"), done("d-job", "lost", why="gone")]), 80, 24)
    words = [line.split() for line in lines]
    assert lines[0].startswith(" construir top  here ")
    assert lines[0].endswith(" 12:00:00 UTC ")
    assert words[1][2:] == ["1/2", "waiting", "1", "free", "5", "GiB", "(keeps", "2", "GiB)", "kvm"]
    for row in (["a-job", "1:02:03"], ["b-job", "1"], ["c-job", "alice", "1:05", "failed,", "2"]):
        assert row in words
    assert ["d-job", "alice", "1:05", "lost", "gone"] in words
    assert (len(lines), words[-1][:2]) == (24, ["q", "quit"])


def test_job_whose_packages_are_installed_has_no_machine_of_the_slots() -> None:
    full = scene(["a", "b"], [], [])
    running = [*full.board.summary.running, RunningJob("c", NOON, installs=True)]
    told = full._replace(
        board=Board(summary=msgspec.structs.replace(full.board.summary, running=running), lines=full.board.lines)
    )
    assert drawn(told, 80, 24)[1].split()[2] == "2/2"
    assert next(iter(plain(told, None))).startswith("2026-11-29 12:00:00 2 of 2 machines run, 0 wait")


def test_rows_are_sorted_as_asked_and_by_their_own_order_else() -> None:
    ended = [done("x-1-b", contributor="bob"), done("x-2-a", "failed, 1", "carol"), done("x-3-c", "lost")]
    found = {sort: [line.id for line in scene([], [], ended, sort).lines("done")] for sort in SORTS}
    assert found == {
        "time": ["x-1-b", "x-2-a", "x-3-c"],
        "job": ["x-2-a", "x-1-b", "x-3-c"],
        "contributor": ["x-3-c", "x-1-b", "x-2-a"],
        "status": ["x-2-a", "x-3-c", "x-1-b"],
    }


@settings(deadline=None, max_examples=50)
@given(
    st.integers(20, 200),
    st.integers(5, 60),
    st.lists(st.text(max_size=60), max_size=4),
    st.lists(st.text(max_size=60), max_size=30),
    st.lists(st.builds(done, st.text(max_size=60), st.text(max_size=20), st.text(max_size=40), st.text()), max_size=30),
)
def test_it_never_leaves_the_terminal_nor_obeys_a_stranger(
    width: int, height: int, running: list[str], queue: list[str], ended: list[Line]
) -> None:
    lines = drawn(scene(running, queue, ended, problem="lost\x1b[2J\n"), width, height)
    assert len(lines) <= height
    assert all(cell_len(line) <= width for line in lines)
    assert all(line.isprintable() for line in lines)


def test_plain_lines_say_all_once_and_then_what_has_changed() -> None:
    first, second = scene(["a"], ["b"], []), scene(["b"], [], [done("a", "failed, 2")])
    assert list(plain(first, None)) == [
        "2026-11-29 12:00:00 1 of 2 machines run, 1 wait, 5 GiB free; every machine is busy",
        "2026-11-29 12:00:00 a running",
        "2026-11-29 12:00:00 b waiting",
    ]
    assert list(plain(first, first.board)) == []
    assert list(plain(second, first.board)) == [
        "2026-11-29 12:00:00 1 of 2 machines run, 0 wait, 5 GiB free",
        "2026-11-29 12:00:00 b running",
        "2026-11-29 12:00:00 a failed, 2 after 1.08 min",
    ]
