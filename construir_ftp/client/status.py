"""Where a job stands: its place while it waits and why, since when it runs, how it ended. As the server tells it."""

import ftplib
import re
from datetime import datetime
from typing import Literal, TypeVar

import msgspec

from construir_ftp import schema
from construir_ftp.client import remote_files
from construir_ftp.client.connection import code
from construir_ftp.errors import AnswerError, MissingError, one_line
from construir_ftp.jobs.result import Result
from construir_ftp.jobs.status import Summary, read_reply

# What may be asked for by name: an id, or what a contributor called a job of theirs.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._+~@=,-]{0,199}")

T = TypeVar("T")


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A job, at a moment. `why` is what keeps it from running, or from its machine, `progress` how far that is, where
    it is known; `attempt` counts its machines.
    """

    id: str
    state: Literal["waiting", "running", "done"]
    place: int = 0
    why: str = ""
    progress: str = ""
    cancelled: bool = False
    since: datetime | None = None
    attempt: int = 0


class _Running(msgspec.Struct):
    """/running/<id>/status.json."""

    why: str = ""
    progress: str = ""
    cancelled: bool = False
    since: datetime | None = None
    attempt: int = 0


def is_name(text: str) -> bool:
    """Whether this can be a job's name or id; only what can goes into a path, here or there."""
    return _NAME.fullmatch(text) is not None


def ask(ftp: ftplib.FTP, name: str) -> Standing:
    """How the job `name` stands: an id, or the name that the session's contributor sent it by. Raises MissingError."""
    found = look(ftp, name)
    if found is None:
        raise MissingError(f"there is no job {one_line(name)} on {ftp.host}, or no longer; see: construir jobs")
    return found


def look(ftp: ftplib.FTP, name: str) -> Standing | None:
    """The same; None where there is no such job."""
    if not is_name(name):
        return None
    try:
        reply = ftp.sendcmd(f"SITE STATUS {name}")
    except ftplib.error_perm as error:
        if code(error) == 550:
            return None
        raise
    told = read_reply(reply)
    if told is None or not is_name(told.id):
        raise AnswerError(f"SITE STATUS is answered with {one_line(reply)[:200]!r}; is that a server of Construir's?")
    standing = Standing(id=told.id, state=told.state, place=told.place, why=told.why, cancelled=told.cancelled)
    return _running(ftp, standing) if standing.state == "running" else standing


def _running(ftp: ftplib.FTP, standing: Standing) -> Standing:
    told = remote_files.small(ftp, f"/running/{standing.id}/status.json")
    if told is None:
        return standing  # it has moved on since
    more = decoded(told, _Running, "status.json")
    return msgspec.structs.replace(
        standing,
        why=more.why,
        progress=more.progress,
        cancelled=more.cancelled,
        since=more.since,
        attempt=more.attempt,
    )


def result(ftp: ftplib.FTP, job_id: str) -> Result:
    """What has become of a job that is done. Raises MissingError where it isn't, or its result was pruned."""
    told = remote_files.small(ftp, f"/done/{job_id}/result.json") if is_name(job_id) else None
    if told is None:
        raise MissingError(f"there is no result of {one_line(job_id)} on {ftp.host}, or no longer; see: construir jobs")
    return decoded(told, Result, "result.json")


def overview(ftp: ftplib.FTP) -> Summary:
    """What waits, and what runs."""
    told = remote_files.small(ftp, "/status.json")
    if told is None:
        raise AnswerError(f"{ftp.host} has no /status.json; is that a server of Construir's?")
    return decoded(told, Summary, "status.json")


def decoded(content: bytes, kind: type[T], what: str) -> T:
    """JSON of the server's. Raises AnswerError."""
    try:
        return schema.from_json(content, kind)
    except msgspec.MsgspecError as error:
        raise AnswerError(f"the server's {what} makes no sense: {one_line(error)[:200]}") from error
