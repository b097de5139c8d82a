"""The commands that send a job: STOR and APPE, with REST and ALLO in front. The reply is the verdict on the upload.

An upload whose connections were cut is none, and what has come of it is kept, to be continued. REST says where: at the
end, or before it, and what is kept behind that is thrown away. APPE goes on at the end that SIZE has told.
"""

import logging
import re

from construir_ftp.errors import RefusedError
from construir_ftp.ftp.session import Session
from construir_ftp.ftp.vfs.queue_dir import Queue
from construir_ftp.intake.incoming import Partial
from construir_ftp.intake.upload import Upload
from construir_ftp.jobs import names, reply
from construir_ftp.jobs.reply import OUR_FAULT, Reply

log = logging.getLogger("construir.ftp")

# RFC 959, 4.1.3: bytes, and perhaps the largest record, which a file has none of.
_ANNOUNCEMENT = re.compile(r"([0-9]{1,18})( R [0-9]+)?", re.ASCII)
_TAKEN_OVER = Reply(426, "Another session of yours sends it.")


def allo(session: Session, line: str) -> Reply:
    """Hear how large the next upload is to be: what is too much is refused before a byte of it is sent."""
    announced = _ANNOUNCEMENT.fullmatch(line)
    if announced is None:
        return Reply(501, "Send ALLO with a number of bytes.")
    session.announced_bytes = int(announced[1])
    return Reply(200, "Now send it.")


def stor(session: Session, path: str) -> Reply:
    """Begin an upload, or continue one where REST says; or refuse it before a byte is received."""
    offset, session._restart_position = session._restart_position, 0
    return _begin(session, path, offset)


def appe(session: Session, path: str) -> Reply:
    """Continue an upload at its end, or begin one (RFC 959, 4.1.3)."""
    session._restart_position = 0
    return _begin(session, path, None)


def stou(_session: Session, _line: str) -> Reply:
    """Refuse to choose a name for a job."""
    return Reply(502, "A job has the name it is sent under; use STOR.")


def _begin(session: Session, path: str, offset: int | None) -> Reply:
    announced_bytes, session.announced_bytes = session.announced_bytes, 0
    try:
        queue = _queue(session)
        upload = _open(session, queue, _name(session, queue, path), offset, announced_bytes)
    except RefusedError as refused:
        said = reply.refused(refused)
        session.intake.tally.note_refusal(said)
        session.tell("uploads refused", "%a: %s", path, said)
        return said
    except OSError:
        log.exception("%s: %a: can't be received", session.who, path)
        return OUR_FAULT
    return session.receive(upload)


def _queue(session: Session) -> Queue:
    """Where an upload goes, if this session may send one now. Raises RefusedError."""
    if session.queue is None:
        raise RefusedError("only contributors send jobs; log in as one", 550)
    if session._current_type != "i":
        raise RefusedError("a job is binary; send TYPE I first", 550)
    return session.queue


def _name(session: Session, queue: Queue, path: str) -> str:
    """The last part of `path`, if what is before it is /queue. Raises RefusedError."""
    # Not by way of the whole path: that would lose a last part such as "..".
    directory, slash, name = path.rpartition("/")
    if queue.is_place(session.fs.ftp2fs(path)):
        # What curl -T makes of an address that ends in /queue.
        raise RefusedError("/queue is a directory; end the address with a slash, as in .../queue/", 553)
    if not queue.is_place(session.fs.ftp2fs(directory or slash or ".")):
        names.check_upload_name(name)
        raise RefusedError(f"jobs go into /queue; send it as /queue/{name}", 553)
    return name


def _open(session: Session, queue: Queue, name: str, offset: int | None, announced_bytes: int) -> Upload:
    """The upload to be written to; `offset` in bytes, None for wherever it ends. Raises RefusedError, OSError.

    What was announced of one that goes on may be its rest or all of it, and is not counted.
    """
    intake = session.intake
    partial = intake.partials.find(queue.contributor, name)
    if partial is None and offset is None and name in queue.told:
        raise RefusedError(f"{name} is complete already, or gone; send it whole, with STOR")
    if offset == 0 or (partial is None and offset is None):
        return intake.begin(name, queue.contributor, announced_bytes)
    if partial is None:
        raise RefusedError(f"nothing is kept of {name}; send it whole, without REST", 554)
    if partial.is_busy:
        _end_elsewhere(session, partial)
        raise RefusedError("another session of yours was sending it; ask for its SIZE and continue", 450)
    _check_end(partial, queue.told.get(name) if offset is None else offset, is_exact=offset is None)
    return intake.resume(partial, offset)


def _check_end(partial: Partial, offset: int | None, *, is_exact: bool) -> None:
    """Refuse (RefusedError) to go on behind its end; or, if `is_exact`, anywhere but at its end."""
    try:
        size_bytes = partial.status().st_size
    except FileNotFoundError:
        raise RefusedError(f"nothing is kept of {partial.name} any more; send it whole", 554) from None
    if offset is not None and (offset > size_bytes or (is_exact and offset != size_bytes)):
        raise RefusedError(f"{size_bytes} bytes of {partial.name} are kept: continue there, or send it whole", 554)


def _end_elsewhere(session: Session, partial: Partial) -> None:
    # Most likely its connection is dead, and only this server doesn't know yet.
    for other in list(session.server.sessions):
        if other.upload is not None and other.upload.partial is partial:
            other.break_off(_TAKEN_OVER)
