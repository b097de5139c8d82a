"""The one way into the queue: an upload is checked, its record is staged, and then it is a job, or it is refused.

Nothing here looks into an upload. It takes the word of judges, which are processes of their own; a judge that crashes,
says nothing or takes too long is a refusal of this upload and nothing else. Blocking: call it from a thread.
"""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import msgspec

from construir_ftp.errors import RefusedError
from construir_ftp.intake import base_programs, check_threads
from construir_ftp.intake.judge_handle import Wanted, no_longer_wanted
from construir_ftp.intake.live_check import LiveCheck
from construir_ftp.intake.verdict import Verdict
from construir_ftp.jobs import names, request
from construir_ftp.jobs.job import Job, Record
from construir_ftp.jobs.request import Wishes
from construir_ftp.jobs.result import Signer
from construir_ftp.jobs.spool import Spool
from construir_ftp.layers.resolver import Offer


class Limit(Protocol):
    """What may refuse a job at the last moment: room, a contributor's quota."""

    def check(self, record: Record) -> None:
        """Raise RefusedError if the job may not wait."""


class Known(NamedTuple):
    """What else is known of a job: the weight of its contributor, and who has signed the source that it builds."""

    weight: int = 1
    source_signers: tuple[Signer, ...] = ()


_NO_MORE = Known()


def admit(
    spool: Spool,
    job: Job,
    name: str,
    contributor: str,
    check: LiveCheck,
    offer: Offer,
    *,
    wanted: Wanted = lambda: True,
    limits: Sequence[Limit] = (),
    asks: str | None = None,
    known: Known = _NO_MORE,
) -> Job:
    """incoming -> queue, if what was uploaded as `name` is a job: on return it survives a power cut.

    All of the upload is there. `wanted` is asked every second, and in the last moment before the job is one,
    whether anybody still waits for the verdict; if not, the upload is refused. So it is if one of the `limits`
    refuses it: they are asked when it is whole, judged and on stable storage. `asks` is a construir.toml to run it
    by, in place of its own. Raises RefusedError, the reason and reply for the client,
    if it isn't a job, or if there is no room left to say so in the spool; OSError, ConstruirError. Whatever is
    raised, the upload is still in incoming/, the caller's to delete.
    """
    names.check_name(name)
    with full_is_refused():
        found = check.conclude(job.upload.stat().st_size, wanted)
        if asks is not None:
            # It has all that the job was run by before, the date as well if it had one.
            found = msgspec.structs.replace(found, construir_toml=asks, newest_s=0)
        record = _record(name, contributor, found, wishes_of(found, offer), offer.max_artifacts_bytes)
        staged = spool.stage(job, msgspec.structs.replace(record, **known._asdict()))
        try:
            _look_once_more(record, limits, wanted)
            return spool.enqueue(staged)
        except BaseException:
            spool.unstage(staged)
            raise


def _look_once_more(record: Record, limits: Sequence[Limit], wanted: Wanted) -> None:
    for limit in limits:
        limit.check(record)
    if not wanted():
        raise no_longer_wanted()


def _record(name: str, contributor: str, found: Verdict, wanted: Wishes, most_artifacts: int) -> Record:
    return Record(
        name=wanted.name or names.slug(name),
        filename=name,
        contributor=contributor,
        codec=found.codec,
        filesystem=found.filesystem,
        upload_bytes=found.upload_bytes,
        padding_bytes=found.padding_bytes,
        image_bytes=found.image_bytes,
        upload_sha256=found.upload_sha256,
        received=datetime.now(UTC),
        construir_toml=found.construir_toml,
        space_bytes=int(wanted.space or 0),
        artifacts_bytes=min(found.image_bytes + int(wanted.space or 0), most_artifacts) if wanted.outputs else 0,
        after=list(wanted.dependencies.results),
        installs=bool(wanted.dependencies.installs()),
        newest_s=found.newest_s,
    )


def wishes_of(found: Verdict, offer: Offer) -> Wishes:
    """What a job asks for, all of which it can have; raises RefusedError, naming the key, if it can't."""
    found.require_admissible()
    wanted = request.of_job(found.construir_toml, found.filesystem)
    offer.check(wanted, found.image_bytes, check_threads.aside)
    base_programs.check(found, wanted, offer.images, offer.default_base)
    return wanted


def no_room() -> RefusedError:
    """The refusal of an upload for which there is no room at the moment."""
    return RefusedError("no room for uploads at the moment; try again later", 452)


@contextmanager
def full_is_refused() -> Iterator[None]:
    """Within, a full disk is a refusal (RefusedError, 452)."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_room() from error
        raise
