"""The commands that rename, delete and tidy: RNFR and RNTO, DELE, MKD, RMD, and those of sizes, times and modes.

None of them changes a job. A file under a temporary name becomes one when it is renamed, and the reply is the verdict
on it; deleting a job asks the runner for its end; the others are answered as clients need it, and do nothing.
"""

import functools
import logging
import re
import time
from pathlib import PurePosixPath

from pyftpdlib.utils import strerror

from construir_ftp.errors import RefusedError
from construir_ftp.ftp.session import Session
from construir_ftp.ftp.vfs.queue_dir import Queue
from construir_ftp.intake.incoming import Partial
from construir_ftp.jobs import inquiry, names, reply
from construir_ftp.jobs.reply import Reply

log = logging.getLogger("construir.ftp")

# MDTM as some clients send it that were not offered MFMT: the time to be set, and the name, which holds no space.
_SETS_TIME = re.compile(r"[0-9]{14} \S+")


# -- renaming --------------------------------------------------------------------------------------------------


def rnfr(session: Session, line: str) -> Reply:
    """Name what is to be renamed: what has a temporary name, or what this session has sent."""
    path, session.rename_from = session.fs.ftp2fs(line), ""
    name = session.queue.name(path) if session.queue else None
    partial = _partial(session, name)
    if partial is not None and not partial.is_whole:
        return Reply(550, f"{name} was cut; send the rest of it first.")
    if session.queue and name and (partial or name in dict(session.queue.sent())):
        session.rename_from = name
        return Reply(350, "Now its new name, with RNTO.")
    return Reply(550, "Only what has a temporary name can be renamed.")


def rnto(session: Session, line: str) -> Reply | None:
    """Rename it. A proper name makes it a job, if it is one: the reply is the verdict."""
    old_name, session.rename_from = session.rename_from, ""
    name = session.queue.name(session.fs.ftp2fs(line)) if session.queue else None
    partial = _partial(session, old_name)
    if not old_name or session.queue is None:
        return Reply(503, "Send RNFR first.")
    if name is None:
        return Reply(553, "Refused: jobs go into /queue")
    if partial is None:
        return _rename_sent(session.queue, old_name, name)
    if partial.is_busy:
        return Reply(450, f"{old_name} is being sent again at the moment.")
    return _rename(session, session.queue, partial, name)


def _partial(session: Session, name: str | None) -> Partial | None:
    return session.intake.partials.find(session.contributor, name) if session.contributor and name else None


def _rename_sent(queue: Queue, old_name: str, name: str) -> Reply:
    # It had a name that somebody takes for temporary, and we don't. It is a job already, whatever it is called.
    job_id = queue.rename_sent(old_name, name)
    return Reply(250, f"Accepted as job {job_id} already.") if job_id else _gone(old_name)


def _gone(name: str) -> Reply:
    return Reply(550, f"{name} is not there any more.")


def _rename(session: Session, queue: Queue, partial: Partial, name: str) -> Reply | None:
    try:
        names.check_upload_name(name)
        if not names.starts_nothing(name):
            session.intake.demand_open()
    except RefusedError as refused:
        return reply.refused(refused)
    if not session.intake.partials.take(partial):
        return _gone(partial.name)
    background = session.server.background
    if names.starts_nothing(name):
        session.answer_later(background.quick, lambda: _rename_partial(session, partial, name))
    else:
        session.answer_later(
            functools.partial(background.check, partial.contributor), lambda: _make_job(session, queue, partial, name)
        )
    return None


def _rename_partial(session: Session, partial: Partial, name: str) -> Reply:
    session.intake.partials.rename(partial, name)
    return reply.kept(name)._replace(code=250)


def _make_job(session: Session, queue: Queue, partial: Partial, name: str) -> Reply:
    try:
        size_bytes = partial.status().st_size
    except OSError:
        # The janitor has deleted it.
        session.intake.partials.give_back(partial)
        return _gone(partial.name)
    begun_s = time.monotonic()
    concluded = session.intake.make_job(partial, name, session.is_wanted)
    session.intake.tally.note_end(concluded.reply, time.monotonic() - begun_s, is_job=bool(concluded.job_id))
    queue.note_conclusion(session.who, name, size_bytes, concluded)
    cut = _partial(session, name)
    if concluded.job_id and cut is not None and session.intake.partials.take(cut):
        # An earlier try under the proper name, which this one makes good.
        session.intake.partials.delete(cut)
    # RFC 959, 5.4: 250 is RNTO's success.
    return concluded.reply._replace(code=250) if concluded.job_id else concluded.reply


# -- deleting --------------------------------------------------------------------------------------------------


def dele(session: Session, line: str) -> Reply | None:
    """Delete what is kept of an upload, or cancel a job that waits or runs: only one's own."""
    path = session.fs.ftp2fs(line)
    name = session.queue.name(path) if session.queue else None
    partial = _partial(session, name)
    if session.queue is None:
        return Reply(550, "Nothing can be deleted here.")
    if partial is not None and partial.is_busy:
        return Reply(450, f"{name} is being received at the moment.")
    if partial is not None and session.intake.partials.take(partial):
        session.queue.failed.discard(partial.name)
        session.answer_later(session.server.background.quick, lambda: _delete(session, partial))
        return None
    if name in session.queue.failed:
        # Clients that delete what they could not send must not hit an older job of the same name.
        session.queue.failed.discard(name)
        return Reply(250, f"Nothing was kept of {name}.")
    return _cancel(session, session.queue, name or _running_id(path))


def _delete(session: Session, partial: Partial) -> Reply:
    session.intake.partials.delete(partial)
    return Reply(250, f"Deleted: {partial.name} was not complete yet.")


def _cancel(session: Session, queue: Queue, name: str) -> Reply | None:
    job_id = queue.job(name)
    if job_id is None:
        session.answer_later(session.server.background.quick, lambda: _nothing_to_cancel(session, name))
    else:
        session.answer_later(session.server.background.quick, lambda: _cancel_job(session, queue, job_id))
    return None


def _nothing_to_cancel(session: Session, name: str) -> Reply:
    if inquiry.is_done(session.intake.spool, name):
        return _has_ended(name)
    return Reply(550, "No job of yours waits or runs by that name.")


def _has_ended(job_id: str) -> Reply:
    return Reply(550, f"Job {job_id} has ended already; see /done/{job_id}/")


def _cancel_job(session: Session, queue: Queue, job_id: str) -> Reply:
    try:
        session.intake.spool.cancel(job_id)
    except FileNotFoundError:
        queue.note_gone(job_id)
        return _has_ended(job_id)
    queue.note_gone(job_id)
    log.info("%s: job %s: cancelled", session.who, job_id)
    return Reply(250, f"Job {job_id} is cancelled; its result will be in /done/{job_id}/")


def _running_id(path: str) -> str:
    """The id in /running/<id>; empty if `path` is another."""
    parts = PurePosixPath(path).parts
    return parts[2] if len(parts) == 3 and parts[1] == "running" else ""


# -- directories -----------------------------------------------------------------------------------------------


def mkd(session: Session, line: str) -> Reply:
    """Make another name for /queue: clients that send a directory make it first."""
    path = session.fs.ftp2fs(line)
    if session.queue and session.queue.make(path):
        quoted = path.replace('"', '""')
        return Reply(257, f'"{quoted}" is another name for /queue.')
    return Reply(550, "No directory can be made there; jobs go into /queue.")


def rmd(session: Session, line: str) -> Reply | None:
    """Remove what MKD made; of a running job, cancel it, since clients know it as a directory."""
    path = session.fs.ftp2fs(line)
    if session.queue and session.queue.unmake(path):
        return Reply(250, "Removed.")
    if session.queue and _running_id(path):
        return _cancel(session, session.queue, _running_id(path))
    return Reply(550, "Nothing can be removed there.")


# -- sizes, times and modes ------------------------------------------------------------------------------------


def size(session: Session, path: str) -> Reply | None:
    """Say how large a file is. In /queue nothing is sent in ASCII mode, so its size there needs no other one first.

    Python's ftplib and tnftp begin in ASCII mode (RFC 3659, 4: the size depends on it), and continue uploads.
    """
    try:
        if session.queue and session.queue.name(path) and session.fs.isfile(path):
            return Reply(213, str(session.fs.getsize(path)))
    except OSError as error:
        # Another thread has deleted it, or made it a job, since it was looked for.
        return Reply(550, f"{strerror(error)}.")
    session.ftp_SIZE(path)
    return None


def mdtm(session: Session, line: str) -> Reply | None:
    """Say when a file was last changed. With a time in front, as WinSCP and ncftpput send it, it means MFMT."""
    if _SETS_TIME.fullmatch(line):
        return mfmt(session, line)
    session.ftp_MDTM(session.fs.ftp2fs(line))
    return None


def mfmt(session: Session, line: str) -> Reply:
    """Leave the time as it is: that of its arrival."""
    when, _, name = line.partition(" ")
    return _leave_alone(session, name, Reply(213, f"Modify={when}; {name}"))


def site_chmod(session: Session, line: str) -> Reply:
    """Leave the mode as it is."""
    return _leave_alone(session, line.partition(" ")[2], Reply(200, "Modes mean nothing here."))


def site_utime(session: Session, line: str) -> Reply:
    """Leave the time as it is. In one form of it the name comes first, in the other last."""
    words = line.split(" ")
    is_first = len(words) == 5 and words[-1].upper() == "UTC"
    return _leave_alone(session, words[0] if is_first else words[-1], Reply(200, "Times mean nothing here."))


def _leave_alone(session: Session, name: str, done: Reply) -> Reply:
    path = session.fs.ftp2fs(name)
    if name and session.queue and (session.queue.is_place(path) or session.queue.find(path) is not None):
        return done
    return Reply(550, "It can't be changed.")
