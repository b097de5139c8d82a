"""One upload, from STOR to its reply: where its bytes go, when it has to stop, what becomes of it.

Says what is to be replied, and knows nothing of sockets: the session does the speaking. Until it is admitted an
upload lies in incoming/; what is refused is deleted, what was cut is kept for a while (see incoming).
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from construir_ftp.errors import RefusedError
from construir_ftp.intake import admission, deb_changes, source_upload
from construir_ftp.intake.file_writer import FileWriter, Flusher
from construir_ftp.intake.incoming import Partial, Partials
from construir_ftp.intake.judge_handle import Wanted
from construir_ftp.intake.judge_pool import JudgePool
from construir_ftp.intake.live_check import LiveCheck
from construir_ftp.intake.quota import Quotas, Share
from construir_ftp.jobs import inquiry, names, reply, service
from construir_ftp.jobs.disk_space import Room
from construir_ftp.jobs.reply import OUR_FAULT, Reply
from construir_ftp.jobs.result import Signer
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.jobs.tally import Tally
from construir_ftp.layers.resolver import Offer

log = logging.getLogger("construir.ftp")


class Conclusion(NamedTuple):
    """What is replied, and the id of the job if it is one now."""

    reply: Reply
    job_id: str = ""


@dataclass(frozen=True)
class Intake:
    """Where uploads go, and how much may come in. Sizes in bytes. `keyring` has the keys that sign a contributor's
    Debian sources; None: they need no signature. `weight_of` says what the weight of a contributor is.
    """

    spool: Spool
    partials: Partials
    judges: JudgePool
    flusher: Flusher
    offer: Offer
    max_upload: int
    room: Room
    quotas: Quotas
    keyring: Callable[[str], Path | None]
    weight_of: Callable[[str], int]
    tally: Tally = field(default_factory=Tally)

    def close(self) -> None:
        """End what works for uploads; they have all come to their end."""
        self.flusher.close()
        self.judges.close()

    # -- what may come in --------------------------------------------------------------------------------------

    def begin(self, name: str, contributor: str, announced_bytes: int = 0) -> "Upload":
        """An upload to be written to. Raises RefusedError (553, 552, 452) and OSError, with nothing left behind."""
        names.check_upload_name(name)
        with self._share(contributor, 0) as share:
            if announced_bytes > self.grow(share, announced_bytes):
                raise admission.no_room()
            partial = self.partials.begin(name, contributor)
            try:
                return Upload(self, partial, share, os.O_CREAT | os.O_EXCL)
            except OSError:
                self.partials.delete(partial)
                raise

    def resume(self, partial: Partial, offset: int | None = None) -> "Upload":
        """An upload that goes on at the end of what is kept, or at `offset` in bytes, which it is cut to before.

        Raises RefusedError (552, 452) and OSError.
        """
        kept_bytes = partial.status().st_size
        size_bytes = kept_bytes if offset is None else min(offset, kept_bytes)
        with self._share(partial.contributor, size_bytes) as share:
            self.partials.claim(partial, size_bytes)
            try:
                return Upload(self, partial, share, os.O_APPEND)
            except OSError:
                self.partials.give_back(partial)
                raise

    def grow(self, share: Share, size_bytes: int) -> int:
        """An upload is, or is going to be, so large. What may come beside it; raises RefusedError (552, 452)."""
        if size_bytes > self.max_upload:
            raise RefusedError(f"larger than {self.max_upload} bytes, the most this server takes", 552)
        share.grow(size_bytes)
        spare_bytes = self.room.for_more()
        if spare_bytes < 0:
            raise admission.no_room()
        return spare_bytes

    def demand_open(self) -> None:
        """Raises RefusedError (452) while the operator has no uploads taken."""
        service.read(self.spool.path).demand_uploads()

    @contextmanager
    def _share(self, contributor: str, size_bytes: int) -> Iterator[Share]:
        """A part in the contributor's quota, given back if the upload can't begin."""
        self.demand_open()
        if self.room.for_uploads() < 0:
            raise admission.no_room()
        share = self.quotas.begin(contributor, size_bytes)
        try:
            with admission.full_is_refused():
                yield share
        except BaseException:
            share.end()
            raise

    # -- what becomes a job ------------------------------------------------------------------------------------

    def make_job(self, partial: Partial, name: str, wanted: Wanted) -> Conclusion:
        """`conclude` what is there whole, under the name that it has now."""
        if deb_changes.is_named(name):
            self.partials.retitle(partial, name)
            return self.conclude_list(partial, wanted, {})
        with LiveCheck(self.judges, partial.job.upload, whose=partial.contributor, name=name) as check:
            return self.conclude(partial, name, check, wanted)

    def conclude(
        self, partial: Partial, name: str, check: LiveCheck, wanted: Wanted, signers: tuple[Signer, ...] = ()
    ) -> Conclusion:
        """Admit what has come, as `name`, or delete it. Takes as long as the check: not for the event loop.

        With a reply 226 the job is in the queue and survives a power cut; with any other nothing of it is left, but of
        one that may have been cut, or if nobody is there any longer to read the reply: `wanted` is asked for that, at
        the last moment too. `signers` have signed what it was made of.
        """
        by = partial.contributor
        try:
            with admission.full_is_refused():
                self.partials.unnote(partial)
            limits, known = (self.quotas, self.room), admission.Known(self.weight_of(by), signers)
            job = admission.admit(
                self.spool, partial.job, name, by, check, self.offer, wanted=wanted, limits=limits, known=known
            )
        except RefusedError as refused:
            return Conclusion(self._turn_down(partial, refused, wanted))
        except Exception:
            log.exception("incoming %s: could not be admitted", partial.job.id)
            self.partials.delete(partial)
            return Conclusion(OUR_FAULT)
        self.partials.finish(partial)
        return Conclusion(reply.accepted(job.id, inquiry.place_if_known(self.spool, job.id)), job.id)

    def conclude_list(self, changes: Partial, wanted: Wanted, sent: Mapping[str, int]) -> Conclusion:
        """A .changes has come: a job is made of the source that it names, or it is compared with what was `sent`.

        Nothing is left of it afterwards; a source that made no job is kept.
        """
        try:
            if deb_changes.names_source(changes.job.upload):
                with admission.full_is_refused():
                    return self._make_source_job(changes, wanted)
            return Conclusion(deb_changes.compare(changes.job.upload, sent))
        except RefusedError as refused:
            return Conclusion(reply.refused(refused))
        except Exception:
            log.exception("incoming %s: no job could be made of it", changes.job.id)
            return Conclusion(OUR_FAULT)
        finally:
            self.partials.delete(changes)

    def _make_source_job(self, changes: Partial, wanted: Wanted) -> Conclusion:
        keyring = self.keyring(changes.contributor)
        made = source_upload.make_image(changes, self.partials, self.offer, keyring, self.room)
        made.image.replace(changes.job.upload)
        with LiveCheck(self.judges, changes.job.upload, whose=changes.contributor, name=changes.name) as check:
            concluded = self.conclude(changes, changes.name, check, wanted, made.signers)
        if not concluded.job_id:
            return concluded._replace(reply=source_upload.in_its_words(concluded.reply))
        for part in made.parts:
            if self.partials.take(part):
                self.partials.delete(part)
        return concluded

    def _turn_down(self, partial: Partial, refused: RefusedError, wanted: Wanted) -> Reply:
        if deb_changes.is_named(partial.name):
            self.partials.delete(partial)
        elif not wanted():
            self.partials.keep(partial, is_whole=partial.starts_nothing)
        elif refused.is_cut and (kept_bytes := self.partials.keep(partial, is_whole=False)):
            # Ctrl-C in tnftp or ncftpput looks like the end of the file.
            return reply.to_be_continued(refused, kept_bytes)
        else:
            self.partials.delete(partial)
        return reply.refused(refused)


class Upload:
    """A file that is being received. Every one must be brought to its end with `conclude`."""

    def __init__(self, intake: Intake, partial: Partial, share: Share, flags: int) -> None:
        self.partial = partial
        self._share = share
        self._intake = intake
        self._refused: Reply | None = None
        self._cut: Reply | None = None
        self.file = FileWriter(partial.job.upload, flags, intake.flusher)
        self._check = LiveCheck(intake.judges, partial.job.upload, share.most_bytes, partial.contributor, partial.name)

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

    @property
    def shows_its_end(self) -> bool:
        """Whether one that is not whole is found out by what it holds: an image is, a list of files is not."""
        return not deb_changes.is_named(self.name)

    # -- while it comes ----------------------------------------------------------------------------------------

    def write(self, chunk: bytes | memoryview) -> bool:
        """Append what was received; true if its sender had better pause, see `is_behind`.

        Raises RefusedError where it must stop (552, 452, or the verdict), and OSError. The memory is the caller's again
        afterwards, and what is received next may be put into it.
        """
        spare_bytes = self._intake.grow(self._share, self.size_bytes + len(chunk))
        with admission.full_is_refused():
            self.file.write(chunk, spare_bytes)
        if not names.is_part(self.name):
            self._check.feed(self.size_bytes)
        return self.is_behind()

    def is_behind(self, part: float = 1.0) -> bool:
        """Whether its check is further behind than it may be, or than that part of it."""
        return self._check.is_behind(self.size_bytes, part)

    def verdict_fileno(self) -> int | None:
        """A descriptor that becomes readable when there is something to `heed`; None while there is no such."""
        return self._check.fileno()

    def heed(self) -> None:
        """Hear how its check goes. Raises RefusedError if it is refused by now."""
        self._check.heed()

    def refuse(self, why: Reply) -> None:
        """Say that it is not to be admitted, nor kept, and what is to be replied; the first reason given counts."""
        if not self._refused and not self._cut:
            self._refused = why

    def cut(self, why: Reply) -> None:
        """Say that it came to an early end; it is kept, which is added to the reply."""
        if not self._refused and not self._cut:
            self._cut = why

    # -- its end -----------------------------------------------------------------------------------------------

    def conclude(self, wanted: Callable[[], bool], sent: Mapping[str, int]) -> Conclusion:
        """Admit it, keep it or delete it (Intake.conclude). `sent`: name and size of what was sent in the session."""
        try:
            with self._check:
                if self._is_for_judges():
                    self._check.hurry(self.size_bytes)
                self._settle()
                return self._conclude(wanted, sent)
        finally:
            self._share.end()

    def _is_for_judges(self) -> bool:
        """Whether it is to become a job now."""
        return not (self._refused or self._cut or self.partial.starts_nothing or deb_changes.is_named(self.name))

    def _settle(self) -> None:
        """Put the file on stable storage, unless it is refused; it is, if that can't be done."""
        try:
            with admission.full_is_refused():
                self.file.settle(durable=not self._refused)
        except RefusedError as refused:
            self._refused = self._refused or reply.refused(refused)
        except OSError:
            log.exception("incoming %s: can't be written", self.job.id)
            self._refused = self._refused or OUR_FAULT

    def _conclude(self, wanted: Callable[[], bool], sent: Mapping[str, int]) -> Conclusion:
        if self._refused:
            self._intake.partials.delete(self.partial)
            return Conclusion(self._refused)
        if self._cut:
            return Conclusion(self._keep_for_later(self._cut))
        if self.partial.starts_nothing:
            return Conclusion(self._keep())
        if deb_changes.is_named(self.name):
            return self._intake.conclude_list(self.partial, wanted, sent)
        return self._intake.conclude(self.partial, self.name, self._check, wanted)

    def _keep_for_later(self, why: Reply) -> Reply:
        kept_bytes = self._intake.partials.keep(self.partial, is_whole=False)
        kept = f"{kept_bytes} bytes are kept, to be continued" if kept_bytes else "nothing was kept"
        return why._replace(text=f"{why.text.removesuffix('.')}; {kept}.")

    def _keep(self) -> Reply:
        if self._intake.partials.keep(self.partial, is_whole=True):
            return reply.kept(self.name)
        return Reply(552, "Refused: nothing is kept of it: it is empty, too large, or was sent again meanwhile")
