"""Why what a client asks for isn't there, and where to look instead: a job that waits or runs has no result yet, one
that has ended runs no more, and jobs go into /queue itself.

It says no more than SITE STATUS tells anyone.
"""

import errno
import os

from pyftpdlib.utils import strerror

from construir_ftp.jobs import inquiry
from construir_ftp.jobs.spool import Spool

_NOTHING = os.strerror(errno.ENOENT)
_LOGS = ("output.log", "console.log")
# Clients that were told no name log in as anonymous, and can't say so to their users.
NOT_FOR_ANYONE = (
    "Only contributors send jobs; log in as one. What waits is told to anyone by SITE QUEUE, or /status.json"
)


def words(spool: Spool, path: str, error: Exception) -> str:
    """What to say of a session's path that could not be had, without the full stop."""
    if not isinstance(error, FileNotFoundError):
        return str(strerror(error))
    names = [name for name in path.split("/") if name]
    place = names[0] if names else ""
    if place in ("done", "running") and len(names) > 1:
        return _of_job(spool, place, names[1], names[2:]) or _NOTHING
    if place == "queue" and len(names) > 1:
        return f"{_NOTHING}; jobs go into /queue itself, as /queue/NAME"
    return (
        _NOTHING if place in ("done", "running", "layers") else f"{_NOTHING}; jobs go into /queue, results into /done"
    )


def _of_job(spool: Spool, place: str, job_id: str, below: list[str]) -> str:
    if inquiry.is_done(spool, job_id):
        if place == "done" and below:
            return f"{_NOTHING} in the result of job {job_id}; what there is: /done/{job_id}/"
        return f"Job {job_id} has ended; see /done/{job_id}/" if place == "running" else ""
    found = inquiry.unfinished(spool, job_id)
    if found is None:
        return ""
    if found.state == "waiting":
        return f"Job {job_id} still waits; why, says SITE STATUS {job_id}, or /status.json"
    if place == "done":
        return f"Job {job_id} has not ended; see /running/{job_id}/output.log, its result will be in /done/{job_id}/"
    if len(below) == 1 and below[0] in _LOGS:
        why = f": {found.why}" if found.why else ""
        return f"Job {job_id} has printed nothing yet{why}; see /running/{job_id}/status.json"
    return ""
