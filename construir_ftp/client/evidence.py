"""What proves a result of a server's: its list of files, the signature of that, its provenance and its result.json."""

import ftplib
from pathlib import Path

from construir_ftp.client import remote_files
from construir_ftp.errors import MissingError, plainly
from construir_ftp.jobs.result import PROVENANCE, RESULT, SIGNATURE, SUMS
from construir_ftp.trust.verify import STATEMENTS

EVIDENCE = (SUMS, SIGNATURE, PROVENANCE, RESULT)


def bring(ftp: ftplib.FTP, job_id: str, place: Path) -> bool:
    """Bring it into a directory; whether the result is signed. Raises MissingError where there is no result."""
    for name in EVIDENCE:
        content = remote_files.small(ftp, f"/done/{job_id}/{name}")
        if content is None and name == SUMS:
            raise MissingError(f"there is no result of {job_id} on {ftp.host}, or no longer; see: construir jobs")
        if content is None:
            return False
        with plainly(place):
            (place / name).write_bytes(content)
    return True


def statements(ftp: ftplib.FTP, job_id: str) -> bytes | None:
    """What others state of a result, which is no part of it; None where nobody does."""
    return remote_files.small(ftp, f"/done/{job_id}/{STATEMENTS}")
