"""Construir as it was some commits ago: an appliance, or a node of it, is changed to that, and back.

What runs an earlier one has a mount namespace of its own, where the earlier files are in the place of today's, as after
an upgrade: the program, and the files that base images are made of.
"""

import functools
import itertools
import random
import subprocess
from pathlib import Path

from construir_ftp.jobs import spool_format
from tests.support.places import PROJECT

_PARTS = ("construir_ftp", "base-image")
# So far back one goes, counted in commits that have changed the program.
_MOST_BACK = 60


class Releases:
    """Those that work on a spool of today's form. There are none where the project's history is not there."""

    def __init__(self, place: Path) -> None:
        self._place = place / "releases"
        self._place.mkdir()

    def choose(self, chance: random.Random) -> str:
        """A commit; nothing where there is none."""
        commits = _commits()
        return commits[chance.randrange(len(commits))] if commits else ""

    def within(self, commit: str) -> list[str]:
        """The beginning of a command that is to run as the program was at this commit."""
        tree = self._place / commit
        if not tree.exists():
            tree.mkdir()
            archive = subprocess.run(["git", "archive", commit, *_PARTS], cwd=PROJECT, check=True, capture_output=True)
            subprocess.run(["tar", "-x", "-C", tree], input=archive.stdout, check=True)
        mounts = " && ".join(f'mount --bind "{tree}/{part}" "{PROJECT}/{part}"' for part in _PARTS)
        return ["unshare", "--mount", "--propagation=private", "sh", "-c", f'{mounts} && exec "$@"', "sh"]


@functools.cache
def _commits() -> list[str]:
    """Newest first; no further back than to where the configuration that a campaign writes was not known."""
    log = ["git", "log", "--first-parent", f"--max-count={_MOST_BACK + 1}", "--format=%h", "--", "construir_ftp"]
    done = subprocess.run(log, cwd=PROJECT, capture_output=True, text=True, check=False)
    return list(itertools.takewhile(_is_like_today, done.stdout.split()[1:]))


def _is_like_today(commit: str) -> bool:
    """Whether it makes a spool of the same form, and has all keys."""
    form = _file(commit, "construir_ftp/jobs/spool_format.py")
    return f"CURRENT = {spool_format.CURRENT}\n" in form and "\nadmit = " in _file(
        commit, "construir_ftp/cli/construir-server.toml"
    )


def _file(commit: str, path: str) -> str:
    show = ["git", "show", f"{commit}:{path}"]
    return subprocess.run(show, cwd=PROJECT, capture_output=True, text=True, check=False).stdout
