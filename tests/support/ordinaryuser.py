"""Part of the tests again, as an ordinary user: root's view of the system with what the tests need opened to everyone.

The interpreter or the checkout may be in a directory that is root's alone, and pytest's own always is.
"""

import os
import subprocess
from pathlib import Path

from construir_ftp import process
from tests.support.places import PROJECT

UID = 65534


def run(
    argv: list[str], readable: list[Path], place: Path, *setpriv: str, **env: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command as an ordinary user who can read what is `readable`, and owns the directory `place`.

    `setpriv` are further options of setpriv(1). Only for root.
    """
    for path in (place, *place.rglob("*")):
        os.chown(path, UID, UID, follow_symlinks=False)
    identity = ["setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups", *setpriv, "--"]
    return subprocess.run(
        [*_view([PROJECT, *readable], place), *identity, *argv],
        env=process.environment(PYTHONPATH=str(PROJECT), PYTHONDONTWRITEBYTECODE="1", HOME=str(place), **env),
        cwd=place,
        capture_output=True,
        timeout=300,
        text=True,
        check=False,
    )


def _view(readable: list[Path], place: Path) -> list[str]:
    """bubblewrap's options for a copy of the file system in which no directory on the way to these paths is closed."""
    shown = dict.fromkeys(readable, "--ro-bind") | {place: "--bind"}
    behind = {path: top for path in shown for top in [closed(path)] if top}
    covers = [word for top in dict.fromkeys(behind.values()) for word in ("--tmpfs", str(top))]
    binds = [word for path in sorted(behind) for word in (shown[path], str(path), str(path))]
    parents = {parent for path, top in behind.items() for parent in path.parents if parent.is_relative_to(top)}
    opened = [word for parent in sorted(parents - behind.keys()) for word in ("--chmod", "0755", str(parent))]
    return ["bwrap", "--dev-bind", "/", "/", *covers, *binds, *opened, "--chdir", str(place), "--"]


def closed(path: Path) -> Path | None:
    """The topmost directory on the way to `path` that only its owner can enter."""
    return next((parent for parent in reversed(path.parents) if not parent.stat().st_mode & 0o001), None)
