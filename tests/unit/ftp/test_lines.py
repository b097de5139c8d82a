"""Promises of lines: whole whatever pieces they come in, bounded whatever comes."""

import random

import pytest

from construir_ftp.ftp.lines import LONGEST_BYTES, Lines


def taken(lines: Lines) -> list[bytes]:
    return [lines.next() for _ in range(len(lines))]


def fed(*pieces: bytes) -> Lines:
    lines = Lines()
    for piece in pieces:
        lines.feed(piece)
    return lines


def test_lines_are_the_same_whatever_pieces_they_come_in() -> None:
    said = b"USER alice\r\n\r\nX\nY\r\nZ\rQ\r\r\n" + b"y" * LONGEST_BYTES + b"\r\nPASS \xff\xf4\r\nbegun"
    expected = [b"USER alice", b"", b"X", b"Y", b"Z\rQ\r", b"y" * LONGEST_BYTES, b"PASS \xff\xf4"]
    assert taken(fed(said)) == expected
    assert taken(fed(*(said[at : at + 1] for at in range(len(said))))) == expected
    chance = random.Random(7)
    for _ in range(200):
        cuts = sorted(chance.sample(range(len(said)), 5))
        pieces = [said[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
        assert taken(fed(*pieces)) == expected


@pytest.mark.parametrize("size", [LONGEST_BYTES + 1, 5000, 10**6])
@pytest.mark.parametrize("step", [1000, 2**20])
def test_line_that_is_too_long_is_one_line_that_is_too_long_and_is_not_kept(size: int, step: int) -> None:
    said = b"x" * (size - 1) + b"\r\r\nNOOP\r\n"
    lines = fed(*(said[at : at + step] for at in range(0, len(said), step)))
    assert [len(line) for line in taken(lines)] == [LONGEST_BYTES + 1, 4]


def test_line_without_an_end_takes_no_more_memory_than_one_that_is_too_long() -> None:
    lines = Lines()
    for _ in range(1000):
        lines.feed(b"x" * 4096)
    assert len(lines._begun) <= LONGEST_BYTES + 2
    assert not lines


@pytest.mark.parametrize("line", [b"", b"NOOP", b"x" * LONGEST_BYTES, b"x" * 4090])
def test_lines_are_full_before_they_take_much_memory(line: bytes) -> None:
    lines = Lines()
    for _ in range(1000):
        if not lines.is_full:
            lines.feed(line + b"\r\n")
    found = taken(lines)
    assert len(found) <= 1000
    assert set(found) == {line[: LONGEST_BYTES + 1]}
    assert sum(map(len, found)) <= 70_000


def test_what_is_for_the_command_under_way_is_found_behind_others() -> None:
    lines = fed(b"NOOP\r\n\xff\xf4\xf2ABOR\r\nSTATUS\r\nstat /x\r\nSITE STAT\r\n")
    urgent = []
    while lines.has_urgent:
        urgent.append(lines.next_urgent())
    assert urgent == [b"\xff\xf4\xf2ABOR", b"stat /x"]
    assert taken(lines) == [b"NOOP", b"STATUS", b"SITE STAT"]


def test_lines_that_are_forgotten_leave_nothing_of_the_next_one() -> None:
    lines = fed(b"ABOR\r\nUSER mall")
    lines.clear()
    lines.feed(b"NOOP\r\n")
    assert not lines.has_urgent
    assert taken(lines) == [b"NOOP"]
