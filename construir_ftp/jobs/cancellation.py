"""The wish for the end of a job that waits or runs: the marker `cancel` in its directory, which says whose wish it is.

Anyone may put it there; what comes of it, the holder of the spool's lock does. Nothing here moves a job.
"""

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

from construir_ftp import files
from construir_ftp.jobs import modes
from construir_ftp.jobs.job import CANCEL, CONTRIBUTOR

_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC


def ask(spool: Path, job_id: str, whose: str) -> None:
    """Ask for the end of a job; on return the wish survives a power cut. Raises FileNotFoundError if the job neither
    waits nor runs, or has come to its end meanwhile.
    """
    # The descriptor follows the directory wherever it is moved: the marker goes to this job or to none.
    directory = _find(spool, job_id)
    try:
        _mark(spool, directory, whose)
        if (spool / "done" / job_id).exists():
            # Published just now, and perhaps after the spool had looked for the last time.
            with suppress(FileNotFoundError):
                os.unlink(CANCEL, dir_fd=directory)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), job_id)
    finally:
        os.close(directory)


def _mark(spool: Path, directory: int, whose: str) -> None:
    # Written elsewhere: what is in the job's directory is published, or deleted, by others at the same time.
    draft = spool / f".{CANCEL}.{secrets.token_hex(8)}"
    try:
        # Empty for the usual one, so that a full disk keeps no contributor from cancelling.
        files.write_durably(draft, whose.encode() if whose != CONTRIBUTOR else b"", modes.OURS)
        os.rename(draft, CANCEL, dst_dir_fd=directory)
    finally:
        draft.unlink(missing_ok=True)
    os.fsync(directory)


def _find(spool: Path, job_id: str) -> int:
    """A descriptor of the directory of a job that waits or runs; it may move from one to the other meanwhile."""
    for state in ("queue", "running", "queue"):
        with suppress(FileNotFoundError):
            return os.open(spool / state / job_id, os.O_RDONLY | os.O_DIRECTORY | _OPEN)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), job_id)
