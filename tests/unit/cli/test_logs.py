"""A line of the log is a record: whatever strangers have said, it begins no other, and moves no cursor."""

import io
import logging
import subprocess
import sys

from hypothesis import example, given
from hypothesis import strategies as st

from construir_ftp.cli.logs import EscapingFormatter

FORGED = (
    "\x1b[2J\r2026-11-29 10:00:00,000 construir.runner: job FORGED: success\n2026-11-29 x\u2028\u202e\x85\x00\ud800"
)


def logged(message: str, *arguments: object, error: BaseException | None = None) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(EscapingFormatter("%(name)s: %(message)s"))
    log = logging.Logger("ours")
    log.addHandler(handler)
    log.error(message, *arguments, exc_info=error)
    return stream.getvalue()


@given(st.text())
@example(FORGED)
@example("x\n" * 100)
def test_whatever_is_logged_is_one_printable_line(text: str) -> None:
    for line in (logged("%s", text), logged("job %s: %r, %a", text, text, text), logged(text.replace("%", "%%"))):
        assert line.startswith("ours: ")
        assert line.endswith("\n")
        assert line[:-1].isprintable()


@given(st.text())
@example(FORGED)
def test_no_line_of_a_traceback_begins_as_a_record_does(text: str) -> None:
    error = RuntimeError(text)
    error.__cause__ = ValueError(text)
    error.add_note(text)
    first, *others = logged("failed", error=error).removesuffix("\n").split("\n")
    assert first == "ours: failed"
    assert all(line.startswith("    ") and line.isprintable() for line in others)


def test_a_line_has_an_end_however_much_is_said() -> None:
    assert len(logged("%s", "x" * 10**6)) < 5000


NOBODY_CATCHES = """
import logging, sys, threading
from construir_ftp.cli import logs
logs.begin(logging.INFO, "%(levelname)s %(message)s")
def fail():
    raise ValueError("\\x1b[2J\\nINFO forged")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""


def test_what_nobody_catches_is_logged_in_any_thread() -> None:
    ended = subprocess.run([sys.executable, "-c", NOBODY_CATCHES], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    records = [line for line in ended.stderr.splitlines() if not line.startswith("    ")]
    assert records == ["CRITICAL nobody expected this"] * 2
    assert "\x1b" not in ended.stderr
