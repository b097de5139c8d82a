"""The wish for the end of a job that waits or runs: the marker `cancel` in its directory, which says whose wish it is.

Anyone may put it there; what comes of it, the holder of the spool's lock does. Nothing here moves a job.
"""

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

from construir_ftp.jobs import modes
from construir_ftp.jobs.job import CANCEL

_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC


def ask(spool: Path, job_id: str, whose: str) -> None:
    """Ask for the end of a job; on return the wish survives a power cut. Raises FileNotFoundError if the job neither
    waits nor runs, or has come to its end meanwhile.
    """
    # The descriptor follows the directory wherever it is moved: the marker goes to this job or to none.
    directory = _find(spool, job_id)
    try:
        _mark(directory, whose)
        if (spool / "done" / job_id).exists():
            # Published just now, and perhaps after the spool had looked for the last time.
            with suppress(FileNotFoundError):
                os.unlink(CANCEL, dir_fd=directory)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), job_id)
    finally:
        os.close(directory)


def _mark(directory: int, whose: str) -> None:
    draft = f".{CANCEL}.{secrets.token_hex(4)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN, modes.OURS, dir_fd=directory)
    try:
        os.write(descriptor, whose.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(draft, CANCEL, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


def _find(spool: Path, job_id: str) -> int:
    """A descriptor of the directory of a job that waits or runs; it may move from one to the other meanwhile."""
    for state in ("queue", "running", "queue"):
        with suppress(FileNotFoundError):
            return os.open(spool / state / job_id, os.O_RDONLY | os.O_DIRECTORY | _OPEN)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), job_id)
