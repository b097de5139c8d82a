"""What contributors have begun to send, and what of it is kept: cut uploads, to be continued, files under temporary
names, which become jobs when they are renamed, and those of Debian sources, which their .changes makes a job of.

    incoming/<place>/upload         what has come
                     partial.json   whose it is, and by what name

Each belongs to its contributor: of one name there is one, the latest. It outlives the session and the server, until the
janitor finds it untouched for too long (janitor.incoming_age). Nothing here is ever run, or shown to anyone else.
"""

import logging
import os
import threading
from contextlib import suppress

import msgspec

from construir_ftp import files, process, schema
from construir_ftp.errors import RefusedError
from construir_ftp.jobs import names
from construir_ftp.jobs.spool import Job, Spool

log = logging.getLogger("construir.ftp")

_NOTE = "partial.json"


class _Note(msgspec.Struct, frozen=True):
    """partial.json. `boot` is the boot of the kernel that may hold part of the file in memory; empty: all is on disk.

    `is_whole` is true of what has come to its proper end, and starts nothing.
    """

    name: str
    contributor: str
    boot: str
    is_whole: bool


class Partial:
    """A file in incoming/. While `is_busy` it is being written or judged, and nobody else may touch it."""

    def __init__(self, job: Job, name: str, contributor: str, *, is_whole: bool = False) -> None:
        self.job, self.name, self.contributor = job, name, contributor
        self.is_whole = is_whole
        self.is_busy = False
        self.begun_bytes = 0
        self.replaced: Partial | None = None

    @property
    def starts_nothing(self) -> bool:
        """Whether it has a temporary name, or is part of a Debian source."""
        return names.starts_nothing(self.name)

    def status(self) -> os.stat_result:
        """The file's status. Raises FileNotFoundError once it is gone."""
        return self.job.upload.lstat()

    def note(self, boot: str) -> None:
        """Write down whose it is; not forced to stable storage."""
        told = _Note(name=self.name, contributor=self.contributor, boot=boot, is_whole=self.is_whole)
        files.replace(self.job.path / _NOTE, msgspec.json.encode(told))


class Partials:
    """All of them, of one spool. Safe to use from several threads."""

    def __init__(self, spool: Spool, most_files: int, most_bytes: int) -> None:
        self._spool = spool
        self._most_files, self._most_bytes = most_files, most_bytes
        self._boot = process.boot_id()
        self._lock = threading.Lock()
        self._latest: dict[tuple[str, str], Partial] = {}
        for job in spool.jobs("incoming"):
            self._remember(job)

    def _remember(self, job: Job) -> None:
        """Take over what an earlier server has left, unless a power cut may have taken a part out of it."""
        with suppress(OSError, msgspec.MsgspecError, RefusedError):
            note = schema.from_json((job.path / _NOTE).read_bytes(), _Note)
            if note.boot in ("", self._boot):
                names.check_upload_name(note.name)
                partial = Partial(job, note.name, note.contributor, is_whole=note.is_whole)
                older = self._latest.get((note.contributor, note.name))
                if older is None or older.status().st_mtime < partial.status().st_mtime:
                    self._latest[note.contributor, note.name] = partial

    # -- for sessions --------------------------------------------------------------------------------------

    def find(self, contributor: str, name: str) -> Partial | None:
        """What is there under a name, if anything is."""
        partial = self._latest.get((contributor, name))
        if partial is not None and not partial.job.path.exists():
            self.forget(partial)  # the janitor's work
            return None
        return partial

    def of(self, contributor: str) -> list[Partial]:
        """All that a contributor has."""
        return [partial for partial in list(self._latest.values()) if partial.contributor == contributor]

    def begin(self, name: str, contributor: str) -> Partial:
        """A new place for an upload, busy; what is there under the name already is not any longer.

        It is `replaced`, and left for `finish` to delete. Raises OSError, with nothing left behind.
        """
        partial = Partial(self._spool.receive(), name, contributor)
        partial.is_busy = True
        try:
            partial.note(self._boot)
        except BaseException:
            self._spool.delete(partial.job)
            raise
        self._make_latest(partial)
        return partial

    def take(self, partial: Partial) -> bool:
        """Make it busy; False if it is, or is no longer kept. What was taken has to be given up again with `keep`,
        `delete`, `rename` or `finish`.
        """
        with self._lock:
            is_free = not partial.is_busy and self.is_latest(partial)
            partial.is_busy = partial.is_busy or is_free
        return is_free

    def claim(self, partial: Partial, size_bytes: int) -> None:
        """Take it to be continued after its first `size_bytes`, which are all that is left of it.

        Raises RefusedError (450) if it can't be had any more, and OSError.
        """
        if not self.take(partial):
            raise RefusedError(f"{partial.name} is not kept any more; send it whole", 450)
        try:
            partial.is_whole = False
            os.truncate(partial.job.upload, size_bytes)
            partial.begun_bytes = size_bytes
            partial.note(self._boot)
        except BaseException:
            self.give_back(partial)
            raise

    def forget(self, partial: Partial) -> None:
        """It has become a job, or is gone."""
        with self._lock:
            if self.is_latest(partial):
                del self._latest[partial.contributor, partial.name]

    def is_latest(self, partial: Partial) -> bool:
        """Whether nothing newer has its name."""
        return self._latest.get((partial.contributor, partial.name)) is partial

    # -- for the background: all of these wait for the disk --------------------------------------------------

    def keep(self, partial: Partial, *, is_whole: bool) -> int:
        """Keep what has come, on stable storage, and return how many bytes that is; 0 if nothing is kept.

        The last byte of what was cut is left out. All of it may have come, and only its end, or the reply, have been
        lost: a client that finds everything there would send nothing more, and take the job for accepted. So each has
        something left to send, and gets an answer to it.
        """
        try:
            with partial.job.upload.open("r+b") as file:
                size_bytes = file.seek(0, os.SEEK_END)
                if not is_whole:
                    size_bytes = max(partial.begun_bytes, size_bytes - 1)
                if 0 < size_bytes <= self._most_bytes and self.is_latest(partial):
                    file.truncate(size_bytes)
                    os.fsync(file.fileno())
                    partial.is_whole = is_whole
                    partial.note(boot="")
                    if self._let_go(partial):
                        return size_bytes
        except OSError:
            log.exception("incoming %s: could not be kept", partial.job.id)
        self.delete(partial)
        return 0

    def unnote(self, partial: Partial) -> None:
        """Leave nothing but the upload: it is to become a job."""
        (partial.job.path / _NOTE).unlink(missing_ok=True)

    def delete(self, partial: Partial) -> None:
        """Delete it, or have the janitor try again."""
        self.finish(partial)
        # A judge who is only just being started holds the file a moment longer, but none of its room.
        with suppress(OSError):
            os.truncate(partial.job.upload, 0)
        try:
            self._spool.delete(partial.job)
        except OSError:
            log.exception("incoming %s: could not be deleted, the janitor will try again", partial.job.id)

    def finish(self, partial: Partial) -> None:
        """Forget it: it has become a job, or is gone."""
        self.forget(partial)
        partial.is_busy = False
        self._tidy(partial)

    def rename(self, partial: Partial, name: str) -> None:
        """Give it another name that starts nothing; what was there under that is deleted."""
        self.retitle(partial, name)
        partial.note(boot="")
        self.give_back(partial)

    def retitle(self, partial: Partial, name: str) -> None:
        """Have what was taken found under another name, in the place of what was there."""
        self.forget(partial)
        partial.name = name
        self._make_latest(partial)

    def give_back(self, partial: Partial) -> None:
        """It was taken, and is kept on; unless something newer has its name by now."""
        if not self._let_go(partial):
            self.delete(partial)

    def _let_go(self, partial: Partial) -> bool:
        """Have it no longer busy, if it is the latest of its name; whoever comes later deletes it then, and not before.

        One that is not the latest stays busy, and its own to delete: what has come later may be gone already.
        """
        with self._lock:
            is_kept = self.is_latest(partial)
            partial.is_busy = not is_kept
        if is_kept:
            self._tidy(partial)
        return is_kept

    def _make_latest(self, partial: Partial) -> None:
        """Have it found under its name, in the place of what was."""
        with self._lock:
            partial.replaced = self._latest.get((partial.contributor, partial.name))
            self._latest[partial.contributor, partial.name] = partial

    def _tidy(self, partial: Partial) -> None:
        """Delete what it has replaced, and the contributor's oldest that are too many now."""
        replaced, partial.replaced = partial.replaced, None
        if replaced is not None and not replaced.is_busy:
            self.delete(replaced)
        kept = sorted((part for part in self.of(partial.contributor) if not part.is_busy), key=_age, reverse=True)
        total_bytes = 0
        for number, part in enumerate(kept):
            with suppress(FileNotFoundError):
                total_bytes += part.status().st_size
            if (number >= self._most_files or total_bytes > self._most_bytes) and self.take(part):
                log.info("incoming %s: deleted, %s has kept too much", part.job.id, part.contributor)
                self.delete(part)


def _age(partial: Partial) -> float:
    try:
        return partial.status().st_mtime
    except FileNotFoundError:
        return 0.0
