"""The log, as a person or a program reads it on standard error: a line is a record, and nothing in it can be another.

What is logged may hold words of strangers: names, arguments of FTP, what a guest, apt or e2fsck said, exceptions with
any of that in them. So it is escaped here, once, whoever logs it.
"""

import logging
import os
import sys
import threading
from types import TracebackType

from construir_ftp.cli import journal

# As much as explains anything; whoever wants to fill the disk has to find another way.
_LINE_CHARACTERS = 4000

log = logging.getLogger("construir")


class EscapingFormatter(logging.Formatter):
    """Control, bidirectional and other characters that can't be printed come as Python's escapes.

    A record is a line. The lines of its traceback, if it has one, are indented: none begins as a record does.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library's name
        """The line, without a traceback."""
        return _escaped(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """The line, and a traceback behind it."""
        record.exc_text = None  # another formatter may have left it there, as it is
        return super().format(record)

    def formatException(self, ei: object) -> str:  # noqa: N802
        """A traceback, whose last lines are what an exception says."""
        return _indented(super().formatException(ei))  # type: ignore[arg-type] # what the standard library gives

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        """A stack that was asked for."""
        return _indented(super().formatStack(stack_info))


def _indented(text: str) -> str:
    return "\n".join(f"    {_escaped(line)}" for line in text.split("\n"))


def _escaped(line: str) -> str:
    whole = line if len(line) <= _LINE_CHARACTERS else f"{line[:_LINE_CHARACTERS]}..."
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in whole)


def begin(level: int, form: str) -> None:
    """Log to standard error from `level` on; so do exceptions that nobody catches, in any thread. Once a process.

    Where standard error is systemd's journal, each record is an entry of that, which has its own times.
    """
    to_journal = journal.is_stderr(os.environ)
    handler = journal.JournalHandler() if to_journal else logging.StreamHandler(sys.stderr)
    handler.setFormatter(EscapingFormatter(form.removeprefix("%(asctime)s ") if to_journal else form))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    logging.getLogger("sh").setLevel(logging.WARNING)
    sys.excepthook = _note
    threading.excepthook = _note_in_thread


def _note_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit:  # which ends a thread, silently (threading.excepthook)
        _note(args.exc_type, args.exc_value, args.exc_traceback)


def _note(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    log.critical("nobody expected this", exc_info=(kind, error or kind(), trace))
