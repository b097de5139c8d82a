"""What of a directory becomes part of a job: all of it, but for what the contributor keeps out.

In a git checkout that is what .gitignore names, and .git; git itself is asked, since it alone knows which files it
tracks all the same. Elsewhere a .gitignore means nothing: a release's tarball holds generated files that the project's
.gitignore names. What .construirignore at the top names, in the same patterns, is left out in either case.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pathspec

from construir_ftp import process
from construir_ftp.errors import CommandError, ConstruirError, UsageError

IGNORE = ".construirignore"


def select(source: Path, *, everything: bool = False) -> list[str]:
    """The paths below `source`, with slashes, of what is to be packed; a directory comes before what is in it.

    `everything` leaves nothing out. Raises ConstruirError, and OSError for what can't be read.
    """
    if everything:
        return list(_walk(source, "", None))
    ignored = _ignored(source)
    if not is_checkout(source):
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
    for path in files(source / below):
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


# -- git checkouts -----------------------------------------------------------------------------------------------

# git's word on a contributor's project: which files it does not ignore, and what a commit holds.
# What a user has configured for git has as little say in it as git allows: a commit is the same files for everyone.
_TIMEOUT_S = 3600
_URL = re.compile(r"(https?|ssh|git|file)://.+|[\w.-]+@[\w.-]+:.+")
_SUBMODULE = b"160000 "
# No line ends but those that the repository itself wants, and no program to ask for what has changed.
_PLAINLY = ("-c", "core.autocrlf=false", "-c", "core.fsmonitor=false")


def is_checkout(directory: Path) -> bool:
    """Whether the directory is, or is in, a git checkout."""
    return any((place / ".git").exists() for place in (directory.resolve(), *directory.resolve().parents))


def is_repository(source: str) -> bool:
    """Whether this names a repository without files of its own: a bare one's directory, or a URL."""
    path = Path(source)
    is_bare = path.is_dir() and (path / "HEAD").is_file() and (path / "objects").is_dir()
    return is_bare or _is_url(source)


def _is_url(source: str) -> bool:
    return _URL.fullmatch(source) is not None and not Path(source).exists()


def files(directory: Path) -> list[str]:
    """The paths below a checkout's directory that git tracks, or would if it were told to add all.

    The user's own excludes don't count. A checkout within it is one path, with or without a slash at its end.
    """
    told = _git(directory, "ls-files", "-z", "--cached", "--others", "--exclude-per-directory=.gitignore")
    return sorted(set(told.decode(errors="surrogateescape").split("\0")) - {""})


@contextmanager
def opened(source: str, revision: str) -> Iterator[tuple[Path, str]]:
    """A directory that git works in, and the commit there that `revision` means; what a URL names is fetched.

    Raises UsageError where there is no such commit.
    """
    if not _is_url(source):
        yield Path(source), _commit(Path(source), revision)
        return
    with TemporaryDirectory(prefix="construir-git-") as name:
        _git(Path(name), "init", "--quiet", "--bare")
        _git(Path(name), "fetch", "--quiet", "--depth=1", "--", source, revision)
        yield Path(name), _commit(Path(name), "FETCH_HEAD")


def _commit(directory: Path, revision: str) -> str:
    try:
        return _words(directory, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except CommandError as error:
        raise UsageError(f"{directory}: git knows of no commit {revision!a} there; see: git log") from error


def commit_time(directory: Path, commit: str) -> int:
    """When it was committed, in seconds since 1970."""
    return int(_words(directory, "log", "-1", "--format=%ct", commit))


def export(directory: Path, commit: str, target: Path) -> None:
    """Put the tree of a commit into `target`, which is empty; the same part of it that `directory` is of its checkout.

    Raises UsageError if parts of it are in other repositories.
    """
    tree = f"{commit}:{_words(directory, 'rev-parse', '--show-prefix')}"
    for entry in _git(directory, "ls-tree", "-rz", tree).split(b"\0"):
        if entry.startswith(_SUBMODULE):
            name = entry.partition(b"\t")[2].decode(errors="replace")
            raise UsageError(f"{name!a} is a submodule, which no commit holds; pack a checkout that has it")
    with TemporaryDirectory(prefix="construir-git-") as place:
        environment = {
            "GIT_DIR": _words(directory, "rev-parse", "--absolute-git-dir"),
            "GIT_WORK_TREE": str(target),
            "GIT_INDEX_FILE": str(Path(place) / "index"),
        }
        _git(target, "read-tree", tree, env=environment)
        _git(target, "checkout-index", "--all", "--quiet", env=environment)


def _words(directory: Path, *words: str) -> str:
    return _git(directory, *words).decode(errors="surrogateescape").strip()


def _git(directory: Path, *words: str, env: dict[str, str] | None = None) -> bytes:
    return process.capture(["git", *_PLAINLY, *words], timeout_s=_TIMEOUT_S, cwd=directory, env=env)
