"""The jobs of a server: what waits and why, what runs, what is done; and which of them were sent from here."""

import ftplib
from collections.abc import Callable
from datetime import datetime
from typing import Literal

import msgspec

from construir_ftp.client import remote_files, status
from construir_ftp.client.history import Memory, matching, newest
from construir_ftp.errors import AnswerError, MissingError, UsageError, one_line

_MOST_NAMED = 5


class JobLine(msgspec.Struct, frozen=True, kw_only=True):
    """A job, as a line of a table. `mine` is one that was sent from this computer; `why` is the reason for its end."""

    id: str
    mine: bool
    state: Literal["waiting", "running", "done"]
    place: int | None = None
    since: datetime | None = None
    status: str | None = None
    exit_code: int | None = None
    why: str = ""
    contributor: str | None = None


def all_of(ftp: ftplib.FTP, memory: Memory, *, last: int, mine_only: bool) -> list[JobLine]:
    """What waits, in its order, what runs, and the `last` that are done, newest first."""
    mine = {job.id for job in memory.all()}
    now = status.overview(ftp)
    lines = [
        JobLine(id=job_id, mine=job_id in mine, state="waiting", place=place, why=now.why)
        for place, job_id in enumerate(now.queue, 1)
    ]
    lines += [
        JobLine(id=slot.job, mine=slot.job in mine, state="running", since=slot.since, why=slot.words())
        for slot in now.running
    ]
    # An id begins with the time of its arrival.
    done = sorted(filter(status.is_name, remote_files.names(ftp, "/done")), reverse=True)
    wanted = [job_id for job_id in done if job_id in mine or not mine_only]
    lines += [_ended(ftp, job_id, is_mine=job_id in mine) for job_id in wanted[:last]]
    return [line for line in lines if line.mine or not mine_only]


def _ended(ftp: ftplib.FTP, job_id: str, *, is_mine: bool) -> JobLine:
    try:
        ended = status.result(ftp, job_id)
    except MissingError:
        return JobLine(id=job_id, mine=is_mine, state="done", why="its result was pruned just now")
    return JobLine(
        id=job_id,
        mine=is_mine,
        state="done",
        since=ended.published,
        status=ended.status,
        exit_code=ended.exit_code,
        why=ended.reason,
        contributor=ended.contributor,
    )


def resolve(
    ftp: ftplib.FTP, word: str, memory: Memory, *, prefer_live: bool = False, tell: Callable[[str], None] | None = None
) -> str:
    """The id that `word` means: an id, what one begins with, or a job's name.

    Where there are several, those that were sent from here come first, and, if that is preferred, those that are not
    done. If there is somebody to tell, the newest is meant of several that were sent from here. Raises MissingError,
    UsageError where several are meant, and AnswerError where another one is answered for.
    """
    if (exact := status.look(ftp, word)) is not None:
        if not matching(word, [exact.id]):
            raise AnswerError(f"{ftp.host} answers for {one_line(exact.id)} where {one_line(word)} was asked for")
        return exact.id
    now = status.overview(ftp)
    live = {*now.queue, *(slot.job for slot in now.running)}
    mine = {job.id for job in memory.all()}
    there = filter(status.is_name, {*live, *remote_files.names(ftp, "/done")})
    found = sorted(matching(word, list(there)))
    for preferred in (mine, live if prefer_live else set()):
        found = [job_id for job_id in found if job_id in preferred] or found
    if not found:
        raise MissingError(f"there is no job {one_line(word)} on {ftp.host}, or no longer; see: construir jobs")
    if tell is not None and found[-1] in mine:
        return newest(word, found, tell)
    if len(found) > 1:
        more = f", and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
        raise UsageError(f"{one_line(word)} may be any of {', '.join(found[-_MOST_NAMED:])}{more}; say which")
    return found[0]
