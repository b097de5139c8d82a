"""What of a directory becomes part of a job: all of it, but for what the contributor keeps out.

In a git checkout that is what .gitignore names, and .git; git itself is asked, since it alone knows which files it
tracks all the same. Elsewhere a .gitignore means nothing: a release's tarball holds generated files that the project's
.gitignore names. What .construirignore at the top names, in the same patterns, is left out in either case.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pathspec

from construir_ftp.errors import ConstruirError
from construir_ftp.pack import checkout

IGNORE = ".construirignore"


def select(source: Path, *, everything: bool = False) -> list[str]:
    """The paths below `source`, with slashes, of what is to be packed; a directory comes before what is in it.

    `everything` leaves nothing out. Raises ConstruirError, and OSError for what can't be read.
    """
    if everything:
        return list(_walk(source, "", None))
    ignored = _ignored(source)
    if not checkout.is_checkout(source):
        return list(_walk(source, "", ignored))
    files = [path for path in _tracked(source, "") if not ignored.match_file(path)]
    return sorted({*files, *(parent for path in files for parent in _parents(path))})


def _ignored(source: Path) -> pathspec.GitIgnoreSpec:
    try:
        lines = (source / IGNORE).read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        lines = []
    except UnicodeDecodeError as error:
        raise ConstruirError(f"{source / IGNORE}: not UTF-8 text; save it as UTF-8") from error
    try:
        return pathspec.GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise ConstruirError(f"{source / IGNORE}: {error}") from error


def _walk(source: Path, below: str, ignored: pathspec.GitIgnoreSpec | None) -> Iterator[str]:
    with os.scandir(source / below) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path, is_directory = f"{below}{entry.name}", entry.is_dir(follow_symlinks=False)
        if ignored and ignored.match_file(f"{path}/" if is_directory else path):
            continue
        yield path
        if is_directory:
            yield from _walk(source, f"{path}/", ignored)


def _tracked(source: Path, below: str) -> Iterator[str]:
    """What git does not ignore, in checkouts within the checkout too (submodules, and others)."""
    for path in checkout.files(source / below):
        whole = below + path.removesuffix("/")
        try:
            kind = (source / whole).lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):  # tracked, and deleted
            continue
        yield whole
        if stat.S_ISDIR(kind) and (source / whole / ".git").exists():
            yield from _tracked(source, f"{whole}/")


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path
