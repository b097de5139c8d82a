"""Records of the log as systemd's journal takes them: an entry each, with a priority, and fields to look for.

JOB is the id that a record is about, CONTRIBUTOR who caused it, LOGGER the part of the program. They are read off the
templates of messages, which are ours, and never off what strangers have said. The form is systemd.io,
JOURNAL_NATIVE_PROTOCOL; nothing of systemd has to be installed.
"""

import logging
import os
import re
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

SOCKET = Path("/run/systemd/journal/socket")
# As syslog(3) has them.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_DIRECTIVE = re.compile(r"%(?!%)[-#0 +]*[0-9.]*[a-z]")
# An entry has to fit into a datagram of any kernel's.
_MOST_BYTES = 64 * 1024


def is_stderr(environment: Mapping[str, str]) -> bool:
    """Whether what this process says on standard error goes to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        seen = os.fstat(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{seen.st_dev}:{seen.st_ino}"


class JournalHandler(logging.Handler):
    """Sends each record to the journal. What can't be sent is written as a line to standard error."""

    def __init__(self, address: Path = SOCKET) -> None:
        super().__init__()
        self._address = str(address)
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def emit(self, record: logging.LogRecord) -> None:
        """Called with every record."""
        message = self.format(record)
        try:
            self._sender.sendto(_entry(record, message), self._address)
        except OSError:
            sys.stderr.write(f"{message}\n")

    def close(self) -> None:
        """Called when the process ends."""
        self._sender.close()
        super().close()


def _entry(record: logging.LogRecord, message: str) -> bytes:
    fields = {
        "MESSAGE": message,
        "PRIORITY": str(_PRIORITIES.get(record.levelno, 6)),
        "SYSLOG_IDENTIFIER": "construir",
        "LOGGER": record.name,
        **dict(_subjects(record)),
    }
    return b"".join(_field(name, value) for name, value in fields.items())


def _field(name: str, value: str) -> bytes:
    content = value.encode(errors="backslashreplace")[:_MOST_BYTES]
    if b"\n" in content:
        return name.encode() + b"\n" + struct.pack("<Q", len(content)) + content + b"\n"
    return name.encode() + b"=" + content + b"\n"


def _subjects(record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    """What a record is about: the argument behind "job", and the one behind "of" after that; what begins a line of the
    FTP server is a session, CONTRIBUTOR@ADDRESS. `extra` may name the job, too.
    """
    template, arguments = str(record.msg), record.args if isinstance(record.args, tuple) else ()
    before, end = "", 0
    for found, value in zip(_DIRECTIVE.finditer(template), arguments, strict=False):
        words, end = template[end : found.start()], found.end()
        if words.endswith("job "):
            yield "JOB", str(value)
        elif before.endswith("job ") and words == " of ":
            yield "CONTRIBUTOR", str(value)
        elif found.start() == 0 and "@" in str(value) and not str(value).startswith("anonymous@"):
            yield "CONTRIBUTOR", str(value).partition("@")[0]
        before = words
    if job := getattr(record, "job", ""):
        yield "JOB", str(job)
