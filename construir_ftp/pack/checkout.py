"""git's word on a contributor's project: which files it does not ignore, and what a commit holds.

What a user has configured for git has as little say in it as git allows: a commit is the same files for everyone.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from construir_ftp import process
from construir_ftp.errors import CommandError, UsageError

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
