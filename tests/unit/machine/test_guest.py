"""The control port's messages, however a guest may cut or forge them."""

import time

from hypothesis import given
from hypothesis import strategies as st

from construir_ftp.jobs.result import Claims
from construir_ftp.machine import guest


def told(*lines: str) -> Claims:
    claims = Claims()
    for line in lines:
        guest.take(claims, line)
    return claims


def test_claims_follows_the_messages_of_a_good_run() -> None:
    assert told("ready", "started", "exit 3", "clean") == Claims(True, True, 3, None, True)


def test_exit_status_is_believed_once() -> None:
    assert told("exit 1", "exit 0").exit_code == 1


def test_status_beyond_a_byte_is_cut_to_one() -> None:
    assert told("exit 99999999999999999999").exit_code == 255


def test_what_a_guest_says_can_neither_move_a_cursor_nor_begin_a_line() -> None:
    said = b"error \x1b[2J\x00\x07\x9b31m\xe2\x80\xae\t\r2026-11-29 10:00:00,000 construir: job x: success\n"
    claims = told(*guest.Messages().feed(said))
    assert claims.error is not None
    assert claims.error.isprintable()
    assert claims.error.startswith(r"\x1b[2J\x00\x07\x9b31m\xe2\x80\xae\t\r2026")


def test_what_explains_the_end_is_taken_once_and_cut() -> None:
    claims = told("signal 11", "signal 9", "poweroff", f"oom {'a' * 1000}", "oom b", "exit 139")
    assert claims == Claims(exit_code=139, signal=11, powered_off=True, starved="a" * 60)


def test_nonsense_is_ignored() -> None:
    assert told(
        "", "signal", "signal -1", "signal x", "exit", "exit x", "exit -1", "exit ²", "go", "ready now"
    ) == Claims(ready=True)


@given(st.lists(st.binary(max_size=2000)))
def test_any_bytes_give_short_printable_lines_and_no_growing_memory(blocks: list[bytes]) -> None:
    messages = guest.Messages()
    for block in blocks:
        for line in messages.feed(block):
            assert len(line) <= 4 * guest.MAX_LINE_BYTES
            assert line.isascii()
            assert line.isprintable()
            guest.take(Claims(), line)
        assert len(messages._partial) <= guest.MAX_LINE_BYTES


@given(st.integers(1, 30))
def test_messages_survive_any_cut(size: int) -> None:
    said = b"ready\nstarted\nexit 7\nclean\n"
    messages = guest.Messages()
    lines = [line for at in range(0, len(said), size) for line in messages.feed(said[at : at + size])]
    assert lines == ["ready", "started", "exit 7", "clean"]


def test_order_is_one_line_with_fresh_random_bytes() -> None:
    first, second = (guest.order("go", guest.Errand(hostname="hello", filesystem="ext2")) for _ in range(2))
    assert first.count(b"\n") == 1
    assert first.startswith(b"go seed=")
    assert first != second


def test_clock_tells_the_time_to_the_nanosecond() -> None:
    before = time.time()
    said = guest.clock().decode()
    assert said.endswith("\n")
    assert len(said.strip().split(".")[1]) == 9
    assert before <= float(said) <= time.time() + 0.001
