"""jail.tools: every tool in a jail has a deadline by the clock, and says in one line why it failed."""

import subprocess
import time

import pytest

from construir_ftp.errors import CommandError
from construir_ftp.jail import cell, tools

WALLS = cell.Cell()
LONG_S = 60.0


def shell(script: str, timeout_s: float = LONG_S, most_bytes: int = 100) -> tools.Ended:
    return tools.run(WALLS, ["sh", "-c", script], timeout_s, most_bytes=most_bytes)


def test_what_a_tool_says_and_how_it_ends_is_told() -> None:
    ended = shell("echo out; echo complaint >&2; exit 3")
    assert (ended.status, ended.output, ended.words) == (3, b"out\n", "complaint")
    with pytest.raises(CommandError, match=r"^exit status 3 from: sh -c '.*' \('complaint'\)$"):
        ended.check()


def test_a_tool_that_takes_no_processor_time_is_ended_by_the_clock() -> None:
    began = time.monotonic()
    with pytest.raises(CommandError, match=r"^not done after 0\.5 s: sh -c 'sleep 600'$"):
        shell("sleep 600", timeout_s=0.5)
    assert time.monotonic() - began < LONG_S


def test_a_tool_is_ended_by_the_clock_while_it_is_fed() -> None:
    with tools.start(WALLS, ["sleep", "600"], 0.5, stdin=subprocess.PIPE) as tool:
        with pytest.raises(BrokenPipeError):
            while True:
                tool.stdin.write(bytes(65536))
        with pytest.raises(CommandError, match="not done after"):
            tool.end()


def test_a_tool_that_says_much_comes_to_its_end_all_the_same() -> None:
    ended = shell("yes out | head -c 3000000; yes complaint | head -c 3000000 >&2; echo last >&2", most_bytes=8)
    assert (ended.status, ended.output) == (0, b"out\nout\n")
    assert ended.words.endswith("complaint\nlast") or ended.words.endswith("last")
    assert len(ended.words) <= 4096


def test_a_program_of_the_system_shows_nothing_that_is_not_there_anyhow() -> None:
    for name in ("/bin/sh", "/sbin/mke2fs", "/usr/bin/python3", "sh"):
        assert cell.program(name) == ()
