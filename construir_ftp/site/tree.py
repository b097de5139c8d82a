"""The site's directory: each file is replaced in one step, and only if it has changed.

    index.html images.html contributors.html   feed.xml   status.json   metrics.prom   robots.txt
    construir.pub allowed_signers
    jobs/ID.html   contributors/NAME.html, NAME.xml   running/ID/output.log   static/
    done           a symbolic link to the spool's done/

A name that begins with a dot is no page: .version says what the pages were made by, .room.json how much room there was.
"""

import errno
import hashlib
import os
from contextlib import suppress
from pathlib import Path

from construir_ftp import files
from construir_ftp.errors import ConstruirError

# The page that visitors begin with.
INDEX = "index.html"
_DIRECTORIES = ("jobs", "contributors", "running", "static")
_VERSION = ".version"


class Tree:
    """A directory of ours, in which others read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digests: dict[str, bytes] = {}

    def prepare(self, done: Path) -> None:
        """Make what is missing, and sweep what a killed process was writing. Raises ConstruirError."""
        try:
            for directory in (self.path, *(self.path / name for name in _DIRECTORIES)):
                directory.mkdir(parents=True, exist_ok=True)
                files.sweep_drafts(directory, age_s=0)  # nobody else writes there
            self._link(done)
        except OSError as error:
            raise ConstruirError(
                f"site {self.path}: {error.strerror}: {error.filename}; make it writable, or name another as site.path"
            ) from error

    def _link(self, done: Path) -> None:
        link = self.path / "done"
        target = os.path.relpath(done.resolve(), self.path.resolve())
        if not (link.is_symlink() and os.readlink(link) == target):  # noqa: PTH115 - as it is written, not a Path
            link.unlink(missing_ok=True)
            link.symlink_to(target)

    def put(self, name: str, content: bytes) -> None:
        """Have a file hold that."""
        digest = hashlib.blake2b(content, digest_size=16).digest()
        if self._digests.get(name) != digest:
            files.replace(self.path / name, content)
            self._digests[name] = digest

    def put_once(self, name: str, content: bytes) -> None:
        """The same of one of very many files, of which nothing is remembered."""
        files.replace(self.path / name, content)

    def remove(self, *names: str) -> None:
        """Have files no more."""
        for name in names:
            self._digests.pop(name, None)
            try:
                (self.path / name).unlink(missing_ok=True)
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:  # such a file there never was
                    raise

    def names(self, directory: str, suffix: str) -> set[str]:
        """What is in a directory of pages, without that suffix."""
        with os.scandir(self.path / directory) as entries:
            return {entry.name.removesuffix(suffix) for entry in entries if entry.name.endswith(suffix)}

    def is_of(self, version: str) -> bool:
        """Whether the pages were all made by this version of ours."""
        with suppress(OSError):
            return (self.path / _VERSION).read_text() == version
        return False

    def note_version(self, version: str) -> None:
        """They were."""
        files.replace(self.path / _VERSION, version.encode())
