"""The one way into the queue: an upload is checked, then admitted, or it is refused.

The gate never looks into an upload. It asks a court, whose judges are processes of their own, and takes their word; a
judge that crashes, says nothing or takes too long is a refusal of this upload and nothing else. Blocking: call it
from a thread. Safe to use from several at once.
"""

import errno
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from construir_ftp.errors import RefusedError
from construir_ftp.intake.judge_handle import Hearing, Wanted, require
from construir_ftp.intake.judge_pool import Court
from construir_ftp.intake.verdict import Verdict
from construir_ftp.jobs import names, request
from construir_ftp.jobs.request import Wishes
from construir_ftp.jobs.spool import Job, Spool, Ticket
from construir_ftp.layers.resolver import Offer

__all__ = ["Court", "Hearing", "Verdict", "admit", "check"]


def _always() -> bool:
    return True


def admit(
    spool: Spool,
    job: Job,
    name: str,
    contributor: str,
    court: Court,
    offer: Offer,
    *,
    hearing: Hearing | None = None,
    wanted: Wanted = _always,
    last_look: Callable[[Ticket], None] = lambda _ticket: None,
) -> Job:
    """incoming -> queue, if what was uploaded as `name` is a job: on return it survives a power cut.

    `hearing` is the upload's, if it was followed as it grew. `wanted` is asked every second, and in the last moment
    before the job is one, whether anybody still waits for the verdict; if not, the upload is refused. So it is if
    `last_look` refuses (RefusedError) what it sees of the job, which is whole then and on stable storage. Raises
    RefusedError, the reason and reply for the client, if it isn't a job, or if there is no room left to say so in the
    spool. Whatever is raised, the upload is still in incoming/, the caller's to delete.
    """
    try:
        names.check_name(name)
        found = check(job.upload, court, hearing=hearing, wanted=wanted)
        ticket = _ticket(name, contributor, found, wishes_of(found, offer), offer.max_artifacts_bytes)

        def look() -> None:
            last_look(ticket)
            require(wanted)

        return spool.admit(job, ticket, look)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RefusedError("no room left on the server; try again later", 452) from error
        raise


def _ticket(name: str, contributor: str, found: Verdict, wanted: Wishes, most_artifacts: int) -> Ticket:
    return Ticket(
        name=wanted.name or names.slug(name),
        filename=name,
        contributor=contributor,
        codec=found.codec,
        filesystem=found.filesystem,
        upload_bytes=found.upload_bytes,
        image_bytes=found.image_bytes,
        upload_sha256=found.upload_sha256,
        received=datetime.now(UTC),
        construir_toml=found.construir_toml,
        space_bytes=int(wanted.space or 0),
        artifacts_bytes=min(found.image_bytes + int(wanted.space or 0), most_artifacts) if wanted.outputs else 0,
        after=list(wanted.dependencies.results),
    )


def wishes_of(found: Verdict, offer: Offer) -> Wishes:
    """What a job asks for, all of which it can have; raises RefusedError, naming the key, if it can't."""
    wanted = request.of_job(found.construir_toml, found.filesystem)
    offer.check(wanted, found.image_bytes)
    return wanted


def check(path: Path, court: Court, *, hearing: Hearing | None = None, wanted: Wanted = _always) -> Verdict:
    """What kind of job the file at `path` is, all of which is there; raises RefusedError if it is none.

    Takes the court's `limits.timeout` at most. `hearing` is over afterwards.
    """
    with hearing or court.hear(path) as heard:
        found = heard.conclude(path.stat().st_size, wanted)
    if found.upload_bytes != path.stat().st_size:
        raise RefusedError("the upload changed while it was being checked; send it again")
    return found
