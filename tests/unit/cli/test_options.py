"""Tables on terminals of any width."""

import os
import pty
import re
import sys
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import IO

import pytest
from rich.table import Table

from construir_ftp.cli.options import print_hanging
from construir_ftp.cli.tables import print_table

ID = "20261129T141605Z-0a1b-hello"
REASON = "run.sh was killed by signal 9, which no part of the machine that is known to the host has sent to it"


def drawn(monkeypatch: pytest.MonkeyPatch, columns: int, rows: Sequence[tuple[str, ...]], ends: Sequence[str]) -> str:
    """A table on a terminal of so many columns."""
    table = Table(*rows[0], box=None)
    for row in rows[1:]:
        table.add_row(*row)
    return printed(monkeypatch, columns, lambda: print_table(table, ends))


def printed(monkeypatch: pytest.MonkeyPatch, columns: int, say: Callable[[], None]) -> str:
    """What a terminal of so many columns gets, without what makes letters bold."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    with os.fdopen(slave, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        patch.setenv("COLUMNS", str(columns))
        say()
    with os.fdopen(master, "rb", buffering=0) as other_end:
        said = b"".join(_all_of(other_end)).decode()
    return re.sub(r"\x1b\[[0-9;]*m", "", said)


def _all_of(other_end: IO[bytes]) -> Iterator[bytes]:
    with suppress(OSError):  # EIO after the last byte, since nobody has the terminal open
        while piece := other_end.read(65536):
            yield piece


ROWS = [("", "job", "state", "since"), ("*", ID, "dependency-failed", "2026-11-29 14:16")]
ROW = f"* {ID} dependency-failed 2026-11-29 14:16"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (60, f"{ROW}\n  {REASON[:57].rstrip()}…\n"),
        (80, f"{ROW}\n  {REASON[:77].rstrip()}…\n"),
        (100, f"{ROW} {REASON[: 100 - len(ROW) - 2].rstrip()}…\n"),
        (120, f"{ROW} {REASON[: 120 - len(ROW) - 2].rstrip()}…\n"),
        (200, f"{ROW} {REASON}\n"),
    ],
)
@pytest.mark.parametrize("kind", ["xterm", "dumb"])
def test_cells_are_whole_and_only_the_end_of_a_row_is_cut(
    columns: int, expected: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", kind)
    said = drawn(monkeypatch, columns, ROWS, ["", REASON])
    assert said.partition("\n")[2] == expected


def test_a_row_without_an_end_has_no_other_line_and_wide_characters_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    lines = drawn(monkeypatch, 30, [("name",), ("a",), ("b",)], ["contents", "", "語" * 20]).splitlines()
    assert [line.rstrip() for line in lines] == ["name contents", "a", "b    " + "語" * 12 + "…"]


def test_a_long_finding_stays_behind_its_head_on_a_terminal_and_is_one_line_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "jobs run without it; jail.require_jail = true lets none run"
    wrapped = printed(monkeypatch, 40, lambda: print_hanging("ok       ", text))
    assert wrapped == "ok       jobs run without it;\n         jail.require_jail = true lets\n         none run\n"
    print_hanging("ok       ", text)
    assert capsys.readouterr().out == f"ok       {text}\n"
