"""One upload, from STOR to its reply: where its bytes go, when it has to stop, what becomes of it.

Says what is to be replied, and knows nothing of sockets: session does the speaking. Until it is admitted an
upload lies in incoming/; what is refused is deleted, what was cut is kept for a while, see partial.
"""

import errno
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import NamedTuple

from construir_ftp.errors import ConstruirError, RefusedError
from construir_ftp.intake import admission, deb_changes
from construir_ftp.intake.file_writer import Flusher, Recording
from construir_ftp.intake.incoming import Partial, Partials
from construir_ftp.intake.judge_handle import Hearing
from construir_ftp.intake.judge_pool import Court
from construir_ftp.intake.live_check import Following
from construir_ftp.intake.quota import Quotas, Share
from construir_ftp.jobs import names, status
from construir_ftp.jobs.disk_space import Room
from construir_ftp.jobs.spool import Job, Spool, Ticket
from construir_ftp.layers.resolver import Offer

log = logging.getLogger("construir.ftp")

OUR_FAULT = "451 The upload could not be taken in, by no fault of its own, and was not kept; try again later."


class Outcome(NamedTuple):
    """What is replied, and the id of the job if it is one now."""

    reply: str
    job_id: str = ""


@dataclass(frozen=True)
class Intake:
    """Where uploads go, and how much may come in. Sizes in bytes."""

    spool: Spool
    partials: Partials
    court: Court
    flusher: Flusher
    offer: Offer
    max_upload: int
    room: Room
    quotas: Quotas

    def close(self) -> None:
        """End what works for uploads; they have all come to their end."""
        self.flusher.close()
        self.court.close()

    def begin(self, name: str, contributor: str, announced_bytes: int = 0) -> "Upload":
        """An upload to be written to. Raises RefusedError (553, 552, 452) and OSError, with nothing left behind."""
        names.check_upload_name(name)
        with self._share(contributor, 0) as share:
            if announced_bytes > self.grow(share, announced_bytes):
                raise _no_room()
            partial = self.partials.begin(name, contributor)
            try:
                return Upload(self, partial, share, os.O_CREAT | os.O_EXCL)
            except OSError:
                self.partials.delete(partial)
                raise

    def grow(self, share: Share, size_bytes: int) -> int:
        """An upload is, or is going to be, so large. What may come beside it; raises RefusedError (552, 452)."""
        if size_bytes > self.max_upload:
            raise RefusedError(f"larger than {self.max_upload} bytes, the most this server takes", 552)
        share.grow(size_bytes)
        spare_bytes = self.room.for_more()
        if spare_bytes < 0:
            raise _no_room()
        return spare_bytes

    @contextmanager
    def _share(self, contributor: str, size_bytes: int) -> Iterator[Share]:
        """A part in the contributor's quota, given back if the upload can't begin."""
        if self.room.for_uploads() < 0:
            raise _no_room()
        share = self.quotas.begin(contributor, size_bytes)
        try:
            with _full_is_refused():
                yield share
        except BaseException:
            share.end()
            raise

    def check(self, ticket: Ticket) -> None:
        """Refuse (RefusedError, 552, 452) a job, all of which is there, if it may not wait, or would lack room."""
        self.quotas.check(ticket)
        self.room.check(ticket)

    def resume(self, partial: Partial) -> "Upload":
        """An upload that goes on at the end of what is kept. Raises RefusedError (552, 452) and OSError."""
        with self._share(partial.contributor, partial.status().st_size) as share:
            self.partials.claim(partial)
            try:
                return Upload(self, partial, share, os.O_APPEND)
            except OSError:
                self.partials.give_back(partial)
                raise

    def admit(self, partial: Partial, name: str, wanted: Callable[[], bool], hearing: Hearing | None = None) -> Outcome:
        """Judge what has come, as `name`; admit it or delete it. Takes as long as the check: not for the event loop.

        With a reply 226 the job is in the queue and survives a power cut; with any other nothing of it is left, but of
        one that may have been cut, or if nobody is there any longer to read the reply: `wanted` is asked for that, at
        the last moment too.
        """
        try:
            with _full_is_refused():
                self.partials.unnote(partial)
                job = admission.admit(
                    self.spool,
                    partial.job,
                    name,
                    partial.contributor,
                    self.court,
                    self.offer,
                    hearing=hearing,
                    wanted=wanted,
                    last_look=self.check,
                )
        except RefusedError as refused:
            if not wanted():
                self.partials.keep(partial, is_whole=partial.is_temporary)
            elif refused.is_cut and (kept_bytes := self.partials.keep(partial, is_whole=False)):
                # Ctrl-C in tnftp or ncftpput looks like the end of the file.
                return Outcome(f"{refusal(refused)}, or go on after the {kept_bytes} bytes that are kept")
            else:
                self.partials.delete(partial)
            return Outcome(refusal(refused))
        except Exception:
            log.exception("incoming %s: could not be admitted", partial.job.id)
            self.partials.delete(partial)
            return Outcome(OUR_FAULT)
        self.partials.finish(partial)
        return Outcome(
            f"226 Accepted as job {job.id}, {self._place(job)}; its result will be in /done/{job.id}/", job.id
        )

    def _place(self, job: Job) -> str:
        try:
            place = status.place(self.spool, job.id)
        except OSError:
            log.exception("job %s: its place in the queue can't be found out", job.id)
            return "in the queue"
        return f"number {place} in the queue" if place else "already taken from the queue"


class Upload:
    """A file that is being received. Every one must be brought to its end with `conclude`."""

    def __init__(self, intake: Intake, partial: Partial, share: Share, flags: int) -> None:
        self.partial = partial
        self._share = share
        self._intake = intake
        self._refused = self._cut = ""
        self.file = Recording(partial.job.upload, flags, intake.flusher)
        self.following = Following(intake.court, partial.job.upload, share.most_bytes)

    @property
    def size_bytes(self) -> int:
        """What has come so far."""
        return self.file.size_bytes

    @property
    def job(self) -> Job:
        """Where it lies."""
        return self.partial.job

    @property
    def name(self) -> str:
        """What it was called by whoever sends it."""
        return self.partial.name

    def write(self, chunk: bytes | memoryview) -> None:
        """Append what was received. Raises RefusedError where it must stop (552, 452, or the verdict), and OSError.

        The memory is the caller's again afterwards, and what is received next may be put into it.
        """
        spare_bytes = self._intake.grow(self._share, self.size_bytes + len(chunk))
        with _full_is_refused():
            self.file.write(chunk, spare_bytes)
        self.following.grow(self.size_bytes)

    def refuse(self, reply: str) -> None:
        """Say that it is not to be admitted, nor kept, and what is to be replied; the first reason given counts."""
        self._refused = self._refused or (not self._cut and reply) or ""

    def cut(self, reply: str) -> None:
        """Say that it came to an early end; it is kept, which is added to the reply's first line."""
        self._cut = self._cut or (not self._refused and reply) or ""

    def conclude(self, wanted: Callable[[], bool], sent: Mapping[str, int]) -> Outcome:
        """Admit it, keep it or delete it; see Intake.admit. `sent`: what the session has sent before, name and size."""
        hearing = self.following.take(self.size_bytes)
        try:
            if self._is_for_judges():
                hearing = self._hear(hearing)
            with hearing or nullcontext():
                self._settle()
                return self._conclude(hearing, wanted, sent)
        finally:
            self._share.end()

    def _is_for_judges(self) -> bool:
        """Whether it is to become a job now."""
        return not (self._refused or self._cut or self.partial.is_temporary or deb_changes.is_named(self.name))

    def _hear(self, hearing: Hearing | None) -> Hearing | None:
        """Have a judge look at it, all of it, while it is put on stable storage; None if there is none just now."""
        with suppress(OSError, ConstruirError):
            hearing = hearing or self._intake.court.hear(self.job.upload)
            hearing.tell_all(self.size_bytes)
        return hearing

    def _settle(self) -> None:
        """Put the file on stable storage, unless it is refused; it is, if that can't be done."""
        try:
            with _full_is_refused():
                self.file.settle(durable=not self._refused)
        except RefusedError as refused:
            self._refused = self._refused or refusal(refused)
        except OSError:
            log.exception("incoming %s: can't be written", self.job.id)
            self._refused = self._refused or OUR_FAULT

    def _conclude(self, hearing: Hearing | None, wanted: Callable[[], bool], sent: Mapping[str, int]) -> Outcome:
        if self._refused:
            self._intake.partials.delete(self.partial)
            return Outcome(self._refused)
        if self._cut:
            return Outcome(self._keep_for_later())
        if self.partial.is_temporary:
            return Outcome(self._keep())
        if deb_changes.is_named(self.name):
            return Outcome(self._compare(sent))
        return self._intake.admit(self.partial, self.name, wanted, hearing)

    def _keep_for_later(self) -> str:
        said, *more = self._cut.split("\r\n")
        kept_bytes = self._intake.partials.keep(self.partial, is_whole=False)
        kept = f"{kept_bytes} bytes are kept, to be continued" if kept_bytes else "nothing was kept"
        return "\r\n".join([f"{said.removesuffix('.')}; {kept}.", *more])

    def _keep(self) -> str:
        if self._intake.partials.keep(self.partial, is_whole=True):
            return f"226 Kept as {self.name}; it becomes a job when it is renamed."
        return "552 Refused: nothing is kept of it: it is empty, too large, or was sent again meanwhile"

    def _compare(self, sent: Mapping[str, int]) -> str:
        try:
            return deb_changes.compare(self.job.upload, sent)
        except RefusedError as refused:
            return refusal(refused)
        finally:
            self._intake.partials.delete(self.partial)


def refusal(refused: RefusedError) -> str:
    """The one line of FTP that says why an upload is refused."""
    return refused.as_reply()


def _no_room() -> RefusedError:
    return RefusedError("no room for uploads at the moment; try again later", 452)


@contextmanager
def _full_is_refused() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room() from error
        raise
