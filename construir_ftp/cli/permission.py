"""What it means that somebody may not touch a file: often it is for the user who runs the appliance."""

import os
from pathlib import Path

# A spool has these; see jobs' spool.
_STATES = ("queue", "running", "done")


def in_words(error: OSError) -> str:
    """What is wrong, of which file, and what to do where that is known."""
    return in_spool(error) or f"{error.strerror or error}: {error.filename or 'no file'}"


def in_spool(error: BaseException | None) -> str:
    """The same of a file in the spool of an appliance that another user runs; empty for all else."""
    if not isinstance(error, PermissionError) or not isinstance(error.filename, str):
        return ""
    path = Path(error.filename).absolute()
    spool = next((above for above in (path, *path.parents) if _is_spool(above)), None)
    owner = _owner(spool) if spool else ""
    return f"{error.strerror}: {spool} is {owner}'s, who runs the appliance; run this as {owner}" if owner else ""


def _is_spool(path: Path) -> bool:
    try:
        return all((path / state).is_dir() for state in _STATES)
    except OSError:
        return False


def _owner(path: Path) -> str:
    """Whose it is; empty for whoever asks, or where nobody can tell."""
    try:
        import pwd  # which Windows has not

        uid = path.stat().st_uid
        return "" if uid == os.geteuid() else pwd.getpwuid(uid).pw_name
    except (ImportError, OSError, KeyError):
        return ""
