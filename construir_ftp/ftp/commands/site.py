"""The commands that say how things are: SITE QUEUE, SITE STATUS ID, SITE HELP. Anyone may ask."""

from functools import partial

from construir_ftp.ftp.session import Session
from construir_ftp.jobs import inquiry, status
from construir_ftp.jobs.reply import Reply
from construir_ftp.jobs.status import RunningJob, Summary

_MOST_LISTED = 50


def site_help(session: Session, _line: str) -> Reply | None:
    """Tell a newcomer how to make and send a job; the same as /README.txt."""
    guide = session.server.notices.readme.splitlines()
    return Reply(214, "SITE QUEUE, SITE STATUS ID, SITE HELP.", ("Construir", *guide))


def site_queue(session: Session, _line: str) -> Reply | None:
    """Tell what waits and why, what runs, and how much room there is."""
    told = session.server.notices.summary()
    title = f"{told.waiting} waiting, {len(told.running)} running"
    return Reply(211, "More in /status.json.", (title, *_lines(told)))


def site_status(session: Session, name: str) -> Reply | None:
    """Tell where a job is, and why: by its id, or by the name that the session's contributor sent it by.

    The latter is how clients that lost the reply to an upload learn what has become of it.
    """
    job_id = (session.queue.job(name) if session.queue else None) or name
    spool = session.intake.spool
    read = partial(session.server.background.read, of=session.network)
    session.answer_later(read, lambda: status.as_reply(inquiry.job(spool, job_id)))
    return None


def _place(slot: RunningJob) -> str:
    return f" on {slot.node}" if slot.node else ""


def _lines(told: Summary) -> list[str]:
    listed = [f"{place}. {job}" for place, job in enumerate(told.queue[:_MOST_LISTED], 1)]
    more = [f"... and {told.waiting - _MOST_LISTED} more"] if told.waiting > _MOST_LISTED else []
    return [
        *(
            f"running: {slot.job}{_place(slot)}{status.since(slot.since)}{f'; {slot.words()}' if slot.doing else ''}"
            for slot in told.running
        ),
        *listed,
        *more,
        *([f"waiting because {told.why}"] if told.why else []),
        f"machines: {told.slots}" + (f", {told.accelerator}" if told.accelerator else ""),
        f"free space: {told.free_bytes // 2**20} MiB",
        *([f"no uploads are taken: {told.why_no_uploads}"] if told.why_no_uploads else []),
    ]
