"""Modes of files and directories in the spool: until a job is done no other login of the host may look into it.

A result is for all. They are set, not asked for, so that no umask changes them. In the spool no artifact can be run;
where a result is brought to, those can be that were programs.
"""

from pathlib import Path

from construir_ftp.jobs import outputs
from construir_ftp.jobs.result import ARTIFACTS, Result

OURS, OURS_DIRECTORY = 0o600, 0o700
EVERYONES, EVERYONES_DIRECTORY = 0o644, 0o755


def restore(place: Path, result: Result) -> None:
    """Make programs of the artifacts in a directory that a result was brought to, as its result.json says.

    Whoever may read such a file may run it then. A name that no artifact can have is passed over. Raises OSError.
    """
    for artifact in result.artifacts:
        path = place / ARTIFACTS / artifact.name
        if artifact.executable and outputs.is_name(artifact.name) and path.is_file() and not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (mode & 0o444) >> 2)
