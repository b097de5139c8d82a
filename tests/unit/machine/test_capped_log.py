"""What is kept of a log that is flooded."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from construir_ftp.machine.capped_log import CappedLog


def write(path: Path, blocks: list[bytes], head: int, tail: int) -> bytes:
    path.unlink(missing_ok=True)
    log = CappedLog(path, head, tail)
    for block in blocks:
        log.write(block)
    log.close()
    return path.read_bytes()


def test_log_within_its_limits_is_kept_to_the_byte(tmp_path: Path) -> None:
    assert write(tmp_path / "log", [b"one\n", b"two\n"], 4, 4) == b"one\ntwo\n"


def test_first_and_last_part_are_kept_and_the_gap_is_named(tmp_path: Path) -> None:
    assert write(tmp_path / "log", [b"abc", b"defghij", b"xyz"], 4, 2) == b"abcd\n[... 7 bytes left out ...]\nyz"


def test_head_can_be_followed_while_the_log_is_open(tmp_path: Path) -> None:
    log = CappedLog(tmp_path / "log", 100, 100)
    log.write(b"live\n")
    assert (tmp_path / "log").read_bytes() == b"live\n"
    log.close()


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(0, 64), st.integers(0, 64))
def test_head_and_tail_are_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[bytes], head: int, tail: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "log"
    everything = b"".join(blocks)
    kept = write(path, blocks, head, tail)
    if len(everything) <= head + tail:
        assert kept == everything
    else:
        missing = len(everything) - head - tail
        gap = f"\n[... {missing} bytes left out ...]\n".encode()
        assert kept == everything[:head] + gap + everything[len(everything) - tail :]
