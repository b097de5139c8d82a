"""Files of a result, brought several at a time, continued where they were cut, and checked against SHA256SUMS.

A file has its name only when all of it has come and is what SHA256SUMS says; until then it is called .NAME.part.
"""

import ftplib
import hashlib
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event
from typing import IO

import msgspec

from construir_ftp.client import remote_files, status
from construir_ftp.client.connection import LOST, Patience, Remote, said
from construir_ftp.client.evidence import EVIDENCE
from construir_ftp.errors import (
    AnswerError,
    ConstruirError,
    DamagedError,
    MissingError,
    TryLaterError,
    one_line,
    plainly,
)
from construir_ftp.jobs import portable_names, sums
from construir_ftp.jobs.result import RESULT, SIGNATURE, SUMS

_SESSIONS = 4
_PIECE_BYTES = 256 * 1024
# More than an appliance puts into a result (artifacts.max_files), unless it is told to.
_MOST_FILES = 20_000
# Less is no progress that a lost connection is forgiven for.
_PROGRESS_BYTES = 64 * 1024
_NAME_CHARACTERS, _NAME_SHOWN, _MOST_NAMED = 512, 80, 5
_ONLY = {"output": "output.log", "console": "console.log", "artifacts": "artifacts/*"}


class Listing(msgspec.Struct, frozen=True):
    """What a result holds, and why some of it can't be brought: a line for each such file, which names it."""

    items: list["Item"]
    refused: list[str]


class Item(msgspec.Struct, frozen=True):
    """A file of a result: its name there, its digest, its size."""

    name: str
    sha256: str
    size_bytes: int


def contents(ftp: ftplib.FTP, job_id: str) -> Listing:
    """What a result holds. Raises MissingError, TryLaterError where the job isn't done, AnswerError for nonsense."""
    listed = remote_files.small(ftp, f"/done/{job_id}/{SUMS}") if status.is_name(job_id) else None
    if listed is None:
        found = status.ask(ftp, job_id)
        raise TryLaterError(f"{found.id} is not done, but {found.state}; follow it with: construir watch {found.id}")
    if listed.count(b"\n") > _MOST_FILES:
        raise AnswerError(f"the server's {SUMS} names more than {_MOST_FILES} files")
    digests, refused = _parsed(listed)
    digests[SUMS] = hashlib.sha256(listed).hexdigest()
    if (signature := remote_files.small(ftp, f"/done/{job_id}/{SIGNATURE}")) is not None:
        digests[SIGNATURE] = hashlib.sha256(signature).hexdigest()
    sizes = {name: remote_files.size(ftp, f"/done/{job_id}/{name}") or 0 for name in digests}
    return Listing([Item(name, digest, sizes[name]) for name, digest in digests.items()], refused)


def _parsed(listed: bytes) -> tuple[dict[str, str], list[str]]:
    """The digest of each file that can be brought, by its name; and why the others can't be."""
    digests: dict[str, str] = {}
    refused = []
    taken: dict[str, str] = {portable_names.folded(name): name for name in (SUMS, SIGNATURE)}
    for line in listed.decode(errors="replace").split("\n")[:-1]:
        found = sums.LINE.fullmatch(line)
        if found is None:
            raise AnswerError(f"the server's {SUMS} has a line that makes no sense: {one_line(line)[:200]!r}")
        name = found[2]
        if why := _why_not(name, taken):
            refused.append(f"{_shown(name)} {why}")
        else:
            digests[name] = found[1]
            taken.update((portable_names.folded(above), f"{above}/") for above in _above(name)[:-1])
            taken[portable_names.folded(name)] = name
    return digests, refused


def _why_not(name: str, taken: dict[str, str]) -> str:
    """Why a name can't be used, on any system; `taken` has those there are, a slash behind a directory's."""
    if why := portable_names.why_no_path(name):
        return why
    if len(name) > _NAME_CHARACTERS:
        return f"is longer than {_NAME_CHARACTERS} characters"
    if any(part.startswith(".") for part in name.split("/")):
        return "begins with a dot, as a file does that has not come whole"
    other = taken.get(portable_names.folded(name), "")
    for above in _above(name)[:-1]:
        known = taken.get(portable_names.folded(above), f"{above}/")
        other = other or (known if known != f"{above}/" else "")
    return f"is called like {_shown(other)} on other systems" if other else ""


def _above(name: str) -> list[str]:
    """A path, and those of the directories above it."""
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _shown(name: str) -> str:
    return repr(one_line(name)[:_NAME_SHOWN])


def demand_all(refused: list[str]) -> None:
    """Raises AnswerError, in a line that names them, if files of a result could not be brought for their names."""
    if refused:
        more = f"; and {len(refused) - _MOST_NAMED} more" if len(refused) > _MOST_NAMED else ""
        raise AnswerError(
            f"left out, since its name can't be used on every system: {'; '.join(refused[:_MOST_NAMED])}{more};"
            " the rest has come"
        )


def choose(items: list[Item], only: tuple[str, ...], image: str | None) -> list[Item]:
    """What of it is wanted: all, or what `only` says: output, console, image, artifacts, or a pattern of names.

    Raises MissingError where a word finds nothing.
    """
    if not only:
        return items
    chosen = {}
    for word in only:
        pattern = image if word == "image" else _ONLY.get(word, word)
        found = [item for item in items if pattern and fnmatchcase(item.name, pattern)]
        if not found:
            names = ", ".join(item.name for item in items)
            raise MissingError(f"the result has nothing for --only {word}; it holds {names}")
        chosen.update({item.name: item for item in found})
    return list(chosen.values())


def proving(items: list[Item]) -> list[Item]:
    """What proves a result, and any part of it."""
    return [item for item in items if item.name in EVIDENCE]


class Fetch:
    """The bringing of some files of a result into a directory.

    `progress` is told, by any thread, of how many bytes more there are; or less, where some have to come again.
    """

    def __init__(self, server: Remote, job_id: str, directory: Path, progress: Callable[[int], None]) -> None:
        self._server, self._id, self._directory, self._progress = server, job_id, directory, progress
        self._waiting: SimpleQueue[Item] = SimpleQueue()
        self._stopped = Event()

    def bring(self, items: list[Item], patience: Callable[[], Patience]) -> None:
        """Bring them all; what is there already, and right, is left alone.

        Raises DamagedError where what came is not what SHA256SUMS says, UnreachableError; what did come stays.
        Raises ConstruirError before anything is fetched where there is no room for it.
        """
        self._demand_room(items)
        # First what says whose result it is, as destination asks. Then the largest, so that nobody waits for it alone
        # at the end.
        for item in sorted(items, key=lambda item: (item.name != RESULT, -item.size_bytes)):
            self._waiting.put(item)
        sessions = min(_SESSIONS, len(items))
        with ThreadPoolExecutor(sessions) as pool:
            running = [pool.submit(self._work, patience()) for _ in range(sessions)]
            try:
                for worker in as_completed(running):
                    worker.result()
            finally:
                self._stopped.set()

    def _demand_room(self, items: list[Item]) -> None:
        """A size is only what the server says: what can't fit is not begun."""
        with plainly(self._directory):
            place = next(place for place in [self._directory, *self._directory.absolute().parents] if place.exists())
            free_bytes = shutil.disk_usage(place).free
            needed_bytes = sum(item.size_bytes - _present_bytes(self._directory / item.name) for item in items)
        if needed_bytes > free_bytes:
            raise ConstruirError(
                f"{self._directory}: No space left on device for {needed_bytes} bytes more; {free_bytes} are free"
            )

    def _work(self, patience: Patience) -> None:
        """Bring one file after the other, until none waits, in as many sessions as it takes."""
        patience.begin()  # the server was there a moment ago: it has said what there is
        item = self._next()
        while item:
            try:
                with _naming_what_is_gone(), self._server.session() as ftp:
                    while item:
                        self._bring(ftp, item, patience)
                        item = self._next()
            except LOST as lost:
                patience.wait(lost, self._server.address)

    def _next(self) -> Item | None:
        try:
            return self._waiting.get_nowait()
        except Empty:
            return None

    def _bring(self, ftp: ftplib.FTP, item: Item, patience: Patience) -> None:
        target = self._directory / item.name
        part = _part_of(target)
        with plainly(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and _digest(target) == item.sha256:
                self._progress(item.size_bytes)
                return
            kept_bytes = part.stat().st_size if part.exists() else 0
        kept_bytes = kept_bytes if kept_bytes <= item.size_bytes else 0
        digest = self._receive(ftp, item, part, kept_bytes, patience)
        if digest != item.sha256 and kept_bytes:
            # What was kept may have been of something else.
            self._progress(-item.size_bytes)
            digest = self._receive(ftp, item, part, 0, patience)
        with plainly(target):
            if digest != item.sha256:
                part.unlink()
                raise DamagedError(f"{item.name} is not what {SUMS} says, and was deleted; fetch it again")
            part.replace(target)

    def _receive(self, ftp: ftplib.FTP, item: Item, part: Path, offset: int, patience: Patience) -> str:
        """Write what comes after `offset` into `part`; the digest of all that is in it then."""
        with _opened(part, "r+b" if offset else "w+b") as file:
            with plainly(part):
                hasher = _hashed(file, offset)
                file.truncate()
            self._progress(offset)
            came_bytes = noted_bytes = offset
            with closing(remote_files.pieces(ftp, f"/done/{self._id}/{item.name}", offset)) as pieces:
                for piece in pieces:
                    if self._stopped.is_set():
                        raise ConstruirError(f"{item.name} has not come whole")
                    came_bytes += len(piece)
                    if came_bytes > item.size_bytes:
                        raise DamagedError(f"{item.name} is longer than the server said; fetch it again")
                    hasher.update(piece)
                    with plainly(part):
                        file.write(piece)
                    self._progress(len(piece))
                    if came_bytes - noted_bytes >= _PROGRESS_BYTES or came_bytes == item.size_bytes:
                        patience.succeed()
                        noted_bytes = came_bytes
        if came_bytes < item.size_bytes:
            # In clear the end of a connection that was cut may look like that of the file, the server's 226 included.
            raise EOFError(f"{item.name} ended early")
        return hasher.hexdigest()


def _present_bytes(target: Path) -> int:
    """How much of a file is here, whole or in part; perhaps of something else, which then makes room."""
    paths = (path for path in (target, _part_of(target)) if path.is_file())
    return max((path.stat().st_size for path in paths), default=0)


def _part_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[IO[bytes]]:
    """A file here. Closing it may be what fails, since that writes what is left."""
    with plainly(path):
        file = path.open(mode)
    try:
        yield file
    finally:
        with plainly(path):
            file.close()


@contextmanager
def _naming_what_is_gone() -> Iterator[None]:
    """A file that SHA256SUMS names, and that can't be had."""
    try:
        yield
    except ftplib.error_perm as refused:
        raise MissingError(f"a file of the result is gone: {said(refused)}") from refused


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hashed(file: IO[bytes], size_bytes: int) -> "hashlib._Hash":
    """The digest of a file's beginning, behind which it stands then."""
    hasher = hashlib.sha256()
    while piece := file.read(min(_PIECE_BYTES, size_bytes - file.tell())):
        hasher.update(piece)
    return hasher
