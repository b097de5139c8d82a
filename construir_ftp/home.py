"""The user's home directory, and where in it the system's customs have files kept.

Source: XDG Base Directory Specification. A relative value of its variables is to be ignored.
"""

import os
from pathlib import Path

from construir_ftp.errors import ConfigError

# What to do where a contributor's own files can't be written.
CURE = "set HOME, or XDG_STATE_HOME, to a directory of yours"


def find(*, needed: bool = False) -> Path:
    """The home directory, which is there if it is needed. Raises ConfigError, also where nothing says which it is."""
    found = os.path.expanduser("~")  # noqa: PTH111 - Path's raises RuntimeError
    if found == "~" or (needed and not os.path.isdir(found)):  # noqa: PTH112 - Path's raises PermissionError
        cure = "set HOME to a directory of yours, or both XDG_STATE_HOME and XDG_CACHE_HOME"
        raise ConfigError(f"the home directory {found} can't be used; {cure}")
    return Path(found)


def place(variable: str, fallback: str, *, needed: bool = False) -> Path:
    """What the variable says, or else `fallback` in the home directory. Raises ConfigError, as find does."""
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else find(needed=needed) / fallback
