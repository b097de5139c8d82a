"""How often each part of an appliance has come to a bad end: killed, or by an exception.

    <spool>/part-NAME   says that the part lives, since which boot, and how often it came to a bad end

A part that starts and finds that the last one never said good-bye, though the host was not started anew in between,
counts that. Nothing depends on it but what people are told.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from construir_ftp import files, process, schema

log = logging.getLogger("construir")

_FILE = "part-"


class Life(msgspec.Struct, frozen=True):
    """part-NAME."""

    boot: str = ""
    is_alive: bool = False
    crashes: int = 0


@contextmanager
def living(spool: Path, part: str) -> Iterator[None]:
    """A part's life, noted in the spool: a bad end is any that doesn't leave the context in good order."""
    before, boot = _read(spool / f"{_FILE}{part}"), process.boot_id()
    crashes = before.crashes + (before.is_alive and before.boot == boot)
    _note(spool, part, Life(boot, is_alive=True, crashes=crashes))
    yield
    _note(spool, part, Life(boot, is_alive=False, crashes=crashes))


def crashes(spool: Path) -> dict[str, int]:
    """How often each part came to a bad end so far, by its name."""
    return {path.name.removeprefix(_FILE): _read(path).crashes for path in sorted(spool.glob(f"{_FILE}*"))}


def _read(path: Path) -> Life:
    try:
        return schema.from_json(path.read_bytes(), Life)
    except (OSError, msgspec.MsgspecError):
        return Life()


def _note(spool: Path, part: str, life: Life) -> None:
    try:
        files.replace(spool / f"{_FILE}{part}", msgspec.json.encode(life))
    except OSError as error:
        log.warning("%s%s can't be written: %s; a bad end of this part would not be told", _FILE, part, error.strerror)
