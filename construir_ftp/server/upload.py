"""One upload, from STOR to its reply: where its bytes go, when it has to stop, what becomes of it.

Says what is to be replied, and knows nothing of sockets: session does the speaking. Until it is admitted an
upload lies in incoming/, and every end but that one deletes it.
"""

import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass

from construir_ftp import gate, jobfile
from construir_ftp.court import Court
from construir_ftp.errors import RefusedError
from construir_ftp.hearing import Hearing
from construir_ftp.offer import Offer
from construir_ftp.room import Room
from construir_ftp.server.following import Following
from construir_ftp.server.quota import Quotas, Share
from construir_ftp.server.recording import Flusher, Recording
from construir_ftp.spool import Job, Spool, Ticket

log = logging.getLogger("construir.ftp")

OUR_FAULT = "451 The upload could not be taken in, by no fault of its own, and was not kept; try again later."


@dataclass(frozen=True)
class Intake:
    """Where uploads go, and how much may come in. Sizes in bytes."""

    spool: Spool
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

    def begin(self, name: str, contributor: str) -> "Upload":
        """An upload to be written to. Raises RefusedError (553, 552, 452) and OSError, with nothing left behind."""
        jobfile.check_name(name)
        if self.room.for_uploads() < 0:
            raise _no_room()
        share = self.quotas.begin(contributor)
        try:
            with _full_is_refused():
                return self._open(name, share)
        except BaseException:
            share.end()
            raise

    def _open(self, name: str, share: Share) -> "Upload":
        job = self.spool.receive()
        try:
            return Upload(self, job, name, share)
        except OSError:
            self.spool.delete(job)
            raise

    def check(self, ticket: Ticket) -> None:
        """Refuse (RefusedError, 552, 452) a job, all of which is there, if it may not wait, or would lack room."""
        self.quotas.check(ticket)
        self.room.check(ticket)


class Upload:
    """A file that is being received. Every one must be brought to its end with `conclude`."""

    def __init__(self, intake: Intake, job: Job, name: str, share: Share) -> None:
        self.job, self.name = job, name
        self._share = share
        self._intake = intake
        self._refused = ""
        self.file = Recording(job.upload, os.O_CREAT | os.O_EXCL, intake.flusher)
        self.following = Following(intake.court, job.upload)

    @property
    def size_bytes(self) -> int:
        """What has come so far."""
        return self.file.size_bytes

    def write(self, chunk: bytes | memoryview) -> None:
        """Append what was received. Raises RefusedError where it must stop (552, 452, or the verdict), and OSError.

        The memory is the caller's again afterwards, and what is received next may be put into it.
        """
        if self.size_bytes + len(chunk) > self._intake.max_upload:
            raise RefusedError(f"larger than {self._intake.max_upload} bytes, the most this server takes", 552)
        self._share.grow(self.size_bytes + len(chunk))
        spare_bytes = self._intake.room.for_more()
        if spare_bytes < 0:
            raise _no_room()
        with _full_is_refused():
            self.file.write(chunk, spare_bytes)
        self.following.grow(self.size_bytes)

    def refuse(self, reply: str) -> None:
        """Say that it is not to be admitted, and what is to be replied; the first reason given counts."""
        self._refused = self._refused or reply

    def conclude(self, wanted: Callable[[], bool]) -> str:
        """Judge it, admit it or delete it; return the reply. Takes as long as the check: not for the event loop.

        A reply 226 means that the job is in the queue and survives a power cut; with any other nothing of it is
        left. `wanted` is asked at the last moment whether there is anyone to read the reply.
        """
        hearing = self.following.take(self.size_bytes)
        try:
            with hearing or nullcontext():
                reply = self._settle() or self._judge(hearing, wanted)
            if not reply.startswith("226"):
                self._delete()
            return reply
        finally:
            self._share.end()

    def _settle(self) -> str:
        """Put the file on stable storage, unless it is refused; the reply if it is, or if that can't be done."""
        try:
            with _full_is_refused():
                self.file.settle(durable=not self._refused)
        except RefusedError as refused:
            self.refuse(refusal(refused))
        except OSError:
            log.exception("incoming %s: can't be written", self.job.id)
            self.refuse(OUR_FAULT)
        return self._refused

    def _judge(self, hearing: Hearing | None, wanted: Callable[[], bool]) -> str:
        try:
            job = self._admit(hearing, wanted)
        except RefusedError as refused:
            return refusal(refused)
        except Exception:
            log.exception("incoming %s: could not be admitted", self.job.id)
            return OUR_FAULT
        return f"226 Accepted as job {job.id}; its result will be in /done/{job.id}/"

    def _admit(self, hearing: Hearing | None, wanted: Callable[[], bool]) -> Job:
        with _full_is_refused():
            intake, contributor = self._intake, self._share.contributor
            return gate.admit(
                intake.spool,
                self.job,
                self.name,
                contributor,
                intake.court,
                intake.offer,
                hearing=hearing,
                wanted=wanted,
                last_look=intake.check,
            )

    def _delete(self) -> None:
        # A judge who is only just being started holds the file a moment longer, but none of its room.
        with suppress(OSError):
            os.truncate(self.job.upload, 0)
        try:
            self._intake.spool.delete(self.job)
        except OSError:
            log.exception("incoming %s: could not be deleted, the janitor will try again", self.job.id)


def refusal(refused: RefusedError) -> str:
    """The one line of FTP that says why an upload is refused."""
    reason = "".join(char if char.isprintable() else "?" for char in str(refused))
    return f"{refused.reply} Refused: {reason}"


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
