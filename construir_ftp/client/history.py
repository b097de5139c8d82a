"""What was sent from this computer: to which server, out of what; and what was begun to be sent, to be continued.

    $XDG_STATE_HOME/construir/sent/<id>.json       a job, as it was accepted
                             /begun/<digest>.json  an upload that has no reply yet; the digest is of its server and name

One file for each, so that several commands at once need no lock. Nothing depends on any of it but convenience: a job
can be followed and fetched by its id from anywhere.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec

from construir_ftp import home, schema
from construir_ftp.client import status
from construir_ftp.errors import ConstruirError
from construir_ftp.pack.pack import Wrapping

# About half a megabyte.
_MOST_REMEMBERED = 1000


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A job that was accepted: its server, what it was made of and how, and the digest of what was sent.

    Of what was an image already there is no `wrapping`.
    """

    id: str
    server: str
    source: str
    wrapping: Wrapping | None
    sha256: str
    time: datetime


class Begun(msgspec.Struct, frozen=True):
    """An upload on its way."""

    sha256: str


def place() -> Path:
    """Where all this is, whether it is there or not. Raises ConfigError."""
    return home.place("XDG_STATE_HOME", ".local/state") / "construir"


class Memory:
    """All that is remembered. What can't be read is as if it weren't there."""

    def __init__(self, path: Path) -> None:
        self._sent, self._begun = path / "sent", path / "begun"

    def remember(self, job: Sent) -> None:
        """Keep it, and forget the oldest if there are too many. Raises ConstruirError where that can't be."""
        if not status.is_name(job.id):
            raise ConstruirError("the server's id is none that a file could be called by")
        _write(self._sent / f"{job.id}.json", job)
        for old in sorted(self._sent.glob("*.json"))[:-_MOST_REMEMBERED]:
            with suppress(OSError):
                old.unlink()

    def all(self) -> Iterator[Sent]:
        """Every job, oldest first."""
        for path in sorted(self._sent.glob("*.json")):
            with suppress(OSError, msgspec.MsgspecError):
                yield schema.from_json(path.read_bytes(), Sent)

    def find(self, word: str) -> list[Sent]:
        """The jobs whose id is, or else begins with, or else is named `word`, oldest first."""
        known = list(self.all())
        ids = matching(word, [job.id for job in known])
        return [job for job in known if job.id in ids]

    def begin(self, server: str, name: str, sha256: str) -> bool:
        """Note that this is about to be sent; whether it had been begun before, so that it can be continued."""
        path = self._path(server, name)
        known = None
        with suppress(OSError, msgspec.MsgspecError):
            known = schema.from_json(path.read_bytes(), Begun)
        with suppress(ConstruirError):
            _write(path, Begun(sha256))
        return known == Begun(sha256)

    def end(self, server: str, name: str) -> None:
        """It has its reply."""
        with suppress(OSError):
            self._path(server, name).unlink()

    def _path(self, server: str, name: str) -> Path:
        return self._begun / f"{hashlib.sha256(f'{server}/{name}'.encode()).hexdigest()[:32]}.json"


def matching(word: str, ids: list[str]) -> list[str]:
    """The ids that `word` means: itself, or else those it begins, or else those of its name."""
    return (
        [job_id for job_id in ids if job_id == word]
        or [job_id for job_id in ids if job_id.startswith(word)]
        or [job_id for job_id in ids if job_id.split("-", 2)[2:] == [word]]
    )


def newest(word: str, ids: list[str], tell: Callable[[str], None]) -> str:
    """The last of these ids of jobs that were sent from here, oldest first; where there are others, that is told."""
    if len(ids) > 1:
        tell(f"{word} may be any of {len(ids)} jobs that were sent from here; the newest is meant: {ids[-1]}")
    return ids[-1]


def _write(path: Path, what: msgspec.Struct) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.write_bytes(msgspec.json.encode(what))
        draft.replace(path)
    except OSError as error:
        why = f"{error.filename or path}: {error.strerror}; construir will not remember"
        raise ConstruirError(f"{why}; {home.CURE}") from error
    finally:
        with suppress(OSError):
            draft.unlink()
