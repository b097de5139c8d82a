"""What must not be in the log, whatever strangers do."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class Faults(logging.Handler):
    """Errors, and lines that are more than a line."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a record."""
        text = self.format(record)
        if record.levelno >= logging.ERROR or record.exc_info or not text.isprintable():
            self.found.append(text)


@contextmanager
def watched_log(*more: str) -> Iterator[list[str]]:
    """What was found in it, all levels included; pytest would keep all of it. `more` are other loggers than ours."""
    faults, loggers = Faults(), [logging.getLogger(name) for name in ("construir", "construir_ftp", *more)]
    for logger in loggers:
        logger.addHandler(faults)
        logger.propagate = False
        logger.setLevel(logging.DEBUG)
    try:
        yield faults.found
    finally:
        for logger in loggers:
            logger.removeHandler(faults)
            logger.propagate = True
            logger.setLevel(logging.NOTSET)
