"""Where the jobs of a state are. Those that run are in running/NODE.BOOT/, a directory for each start of a node.

Nothing here moves a job, and nobody else reads running/ as a directory of jobs.
"""

import os
import re
import secrets
from pathlib import Path

from construir_ftp import files

# No id begins with a letter, so that no job that an older version left in running/ is taken for a node.
_NODE = r"[a-z][a-z0-9-]{0,62}"
_HOLDING = re.compile(rf"({_NODE})\.[0-9a-f]{{8}}")
# The node that the appliance itself is.
LOCAL = "local"


def names_of_before(spool: Path) -> list[str]:
    """The jobs that an older version had in running/ itself."""
    return [name for name in names_in(spool / "running") if not _HOLDING.fullmatch(name)]


def is_node_name(name: str) -> bool:
    """Whether a node can be called that."""
    return re.fullmatch(_NODE, name) is not None


def new_holding(node: str) -> str:
    """The name of the directory for the jobs of a node that starts; no other start of it has the same."""
    return f"{node}.{secrets.token_hex(4)}"


def node_of(holding: Path) -> str:
    """Which node's jobs are in a directory of running/; empty if that is no node's."""
    found = _HOLDING.fullmatch(holding.name)
    return found[1] if found else ""


def directories(spool: Path, state: str) -> list[Path]:
    """The directories that the jobs of a state are in."""
    if state != "running":
        return [spool / state]
    with os.scandir(spool / state) as entries:
        found = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    return sorted(path for path in found if node_of(path))


def names(spool: Path, state: str) -> list[str]:
    """The id of every job in a state, oldest first. What isn't a directory, such as a symbolic link, is no job."""
    return sorted({name for directory in directories(spool, state) for name in names_in(directory)})


def jobs(spool: Path, state: str) -> list[Path]:
    """The directory of every job in a state, oldest first."""
    found = {name: directory / name for directory in directories(spool, state) for name in names_in(directory)}
    return [found[name] for name in sorted(found)]


def names_in(directory: Path) -> list[str]:
    """The ids in one of those directories, oldest first."""
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.name for entry in entries if _is_job(entry))
    except FileNotFoundError:
        if node_of(directory):  # it has just ended
            return []
        raise


def _is_job(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)


def find(spool: Path, state: str, job_id: str) -> Path | None:
    """The directory of a job in a state; None if it isn't there."""
    places = (directory / job_id for directory in directories(spool, state))
    return next((place for place in places if files.is_there(place) and _is_directory(place)), None)


def _is_directory(place: Path) -> bool:
    return place.is_dir() and not place.is_symlink()
