"""A record of the log is an entry of the journal, with its priority and what it is about."""

import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from construir_ftp.cli.journal import JournalHandler
from construir_ftp.cli.logs import EscapingFormatter


@pytest.fixture
def journal(tmp_path: Path) -> socket.socket:
    """Where a journal would listen."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(tmp_path / "socket"))
    listener.settimeout(60)
    return listener


def read(entry: bytes) -> dict[str, str]:
    """An entry's fields (systemd.io, JOURNAL_NATIVE_PROTOCOL)."""
    fields = {}
    while entry:
        line, _, entry = entry.partition(b"\n")
        name, is_short, value = line.partition(b"=")
        if not is_short:
            size_bytes = int.from_bytes(entry[:8], "little")
            value, entry = entry[8 : 8 + size_bytes], entry[8 + size_bytes + 1 :]
        fields[name.decode()] = value.decode()
    return fields


def told(
    journal: socket.socket, name: str, level: int, message: str, *arguments: object, **more: object
) -> dict[str, str]:
    with journal:
        handler = JournalHandler(Path(journal.getsockname()))
        handler.setFormatter(EscapingFormatter("%(name)s: %(message)s"))
        log = logging.Logger(name)
        log.addHandler(handler)
        log.log(level, message, *arguments, **more)  # type: ignore[arg-type]
        handler.close()
        return read(journal.recv(2**20))


def test_an_entry_says_which_job_and_whose(journal: socket.socket) -> None:
    assert told(journal, "construir.runner", logging.INFO, "job %s of %s: taken, %s", "j1", "alice", "to run") == {
        "MESSAGE": "construir.runner: job j1 of alice: taken, to run",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "construir",
        "LOGGER": "construir.runner",
        "JOB": "j1",
        "CONTRIBUTOR": "alice",
    }


@pytest.mark.parametrize(("level", "priority"), [(logging.DEBUG, 7), (logging.WARNING, 4), (logging.ERROR, 3)])
def test_a_level_is_a_priority(journal: socket.socket, level: int, priority: int) -> None:
    assert told(journal, "construir", level, "said")["PRIORITY"] == str(priority)


def test_what_a_session_does_is_its_contributors(journal: socket.socket) -> None:
    entry = told(journal, "construir.ftp", logging.INFO, "%s: job %s: cancelled", "alice@192.0.2.1", "j1")
    assert (entry["CONTRIBUTOR"], entry["JOB"]) == ("alice", "j1")


def test_an_upload_that_has_become_a_job_is_about_that(journal: socket.socket) -> None:
    entry = told(journal, "construir.ftp", logging.INFO, "%s: %a: %s", "alice@::1", "x", "226", extra={"job": "j1"})
    assert (entry["CONTRIBUTOR"], entry["JOB"]) == ("alice", "j1")


def test_what_strangers_say_names_neither_job_nor_contributor(journal: socket.socket) -> None:
    entry = told(journal, "construir.ftp", logging.INFO, "%s: said %s", "anonymous@::1", "job j1 of bob\nJOB=j2\n")
    assert not {"JOB", "CONTRIBUTOR"} & set(entry)


def test_a_traceback_belongs_to_its_entry(journal: socket.socket) -> None:
    entry = told(journal, "construir.runner", logging.ERROR, "job %s: failed", "j1", exc_info=ValueError("no\nsuch"))
    first, *others = entry["MESSAGE"].split("\n")
    assert first == "construir.runner: job j1: failed"
    assert others == ["    ValueError: no", "    such"]
    assert entry["JOB"] == "j1"


def test_what_the_journal_does_not_take_goes_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = JournalHandler(tmp_path / "nobody")
    handler.emit(logging.LogRecord("construir", logging.INFO, "", 0, "said", (), None))
    handler.close()
    assert capsys.readouterr().err == "said\n"


@pytest.mark.parametrize("is_journal", [True, False])
def test_the_journal_is_used_only_by_those_whose_standard_error_it_is(tmp_path: Path, is_journal: bool) -> None:
    script = "import os; from construir_ftp.cli import journal; print(journal.is_stderr(os.environ))"
    with (tmp_path / "stderr").open("wb") as stderr:
        seen = os.fstat(stderr.fileno())
        stream = f"{seen.st_dev}:{seen.st_ino + (not is_journal)}"
        said = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "JOURNAL_STREAM": stream},
            stderr=stderr,
            stdout=-1,
            check=True,
        )
    assert said.stdout.decode() == f"{is_journal}\n"
