"""The wish for the end of a job that waits or runs: the marker `cancel` in its directory, which says whose wish it is.

Anyone may put it there; what comes of it, a node does. Nothing here moves a job.
"""

import errno
import os
from contextlib import suppress
from pathlib import Path

from construir_ftp import files
from construir_ftp.jobs import modes, places
from construir_ftp.jobs.job import CANCEL, CONTRIBUTOR

_OPEN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)  # not everywhere: contributors have other systems


def ask(spool: Path, job_id: str, whose: str) -> None:
    """Ask for the end of a job; on return the wish survives a power cut. Raises FileNotFoundError if the job neither
    waits nor runs, or has come to its end meanwhile.
    """
    while not _ask_once(spool, job_id, whose):
        pass  # it was taken from a node meanwhile, and got another directory (see claims)


def is_asked(state: int, job_id: str, *, anew: bool) -> bool:
    """Whether the end of a job is asked for, in the directory of that descriptor; if `anew`, by other hosts as well."""
    if not anew:
        return os.access(f"{job_id}/{CANCEL}", os.F_OK, dir_fd=state)
    try:
        # Opened, so that a network file system asks its server for what another host has put there (see files).
        directory = os.open(job_id, os.O_RDONLY | os.O_DIRECTORY | _OPEN, dir_fd=state)
    except OSError:  # it is no longer there, or moves just now: the next look is for it
        return False
    try:
        return os.access(CANCEL, os.F_OK, dir_fd=directory)
    finally:
        os.close(directory)


def _ask_once(spool: Path, job_id: str, whose: str) -> bool:
    """Whether it is the job's directory that was marked, and not one that it had before."""
    # The descriptor follows the directory wherever it is moved: the marker goes to this job or to none.
    directory = _find(spool, job_id)
    try:
        return _has_marked(spool, job_id, whose, directory)
    except OSError as error:
        if error.errno != errno.ESTALE:  # another host has removed the directory
            raise
        return False
    finally:
        os.close(directory)


def _has_marked(spool: Path, job_id: str, whose: str, directory: int) -> bool:
    with suppress(FileNotFoundError):  # it was removed
        _mark(spool, directory, whose)
    if files.is_there(spool / "done" / job_id):
        # Published just now, and perhaps after the spool had looked for the last time.
        with suppress(FileNotFoundError):
            os.unlink(CANCEL, dir_fd=directory)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), job_id)
    return _is_at(spool, job_id, directory)


def _is_at(spool: Path, job_id: str, directory: int) -> bool:
    try:
        current = _find(spool, job_id)
    except FileNotFoundError:
        if os.fstat(directory).st_nlink:  # it has just come to its end, perhaps by this
            return True
        raise
    try:
        return os.path.samestat(os.fstat(current), os.fstat(directory))
    finally:
        os.close(current)


def _mark(spool: Path, directory: int, whose: str) -> None:
    # Written elsewhere: what is in the job's directory is published, or deleted, by others at the same time.
    with files.draft(spool / CANCEL) as draft:
        # Empty for the usual one, so that a full disk keeps no contributor from cancelling.
        files.write_durably(draft, whose.encode() if whose != CONTRIBUTOR else b"", modes.OURS)
        os.rename(draft, CANCEL, dst_dir_fd=directory)
    os.fsync(directory)


def _find(spool: Path, job_id: str) -> int:
    """A descriptor of the directory of a job that waits or runs; it may move from one to the other meanwhile."""
    for state in ("queue", "running", "queue", "running"):
        with suppress(FileNotFoundError):
            if place := places.find(spool, state, job_id):
                return os.open(place, os.O_RDONLY | os.O_DIRECTORY | _OPEN)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), job_id)
