"""What an FTP session sees: which paths there are, and what is behind them.

The paths that pyftpdlib hands around here are the session's own ("/done/<id>/output.log"), never the host's, so
none of the host's can get into a reply or a log. Each is walked anew from the spool's directory, name by name,
following no symbolic link; what isn't a regular file or a directory, or begins with a dot, isn't there.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.exceptions import FilesystemError
from pyftpdlib.filesystems import AbstractedFS

from construir_ftp.ftp.vfs import absence, virtual_files
from construir_ftp.ftp.vfs.listing_lines import Entries
from construir_ftp.ftp.vfs.queue_dir import PLACE, Queue
from construir_ftp.ftp.vfs.virtual_files import Agreed, Notices
from construir_ftp.jobs.spool import Spool

_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# What is shown of a job that runs: its logs. Its upload and its disk are nobody's yet.
_LIVE = ("output.log", "console.log")
_A_DIRECTORY = "Not a file, but a directory: it is listed, by curl with a / at the end of its name"


class Permissions(DummyAuthorizer):  # type: ignore[misc] # pyftpdlib is untyped
    """Everyone may enter, list and read whatever their View shows; who may upload is asked in STOR."""

    def has_perm(self, username: str, perm: str, path: str | None = None) -> bool:
        """Whether a command that needs `perm` (see pyftpdlib) is for anyone at all."""
        return perm in self.read_perms

    def get_perms(self, username: str) -> str:
        """The perms of MLSD, which this server doesn't show."""
        return str(self.read_perms)

    def get_msg_quit(self, username: str) -> str:
        """The reply to QUIT."""
        return "Goodbye."


@dataclass(frozen=True)
class Walked:
    """An entry of a directory, whose status is that of a path."""

    name: str
    stat: Callable[[], os.stat_result]


class View(AbstractedFS):  # type: ignore[misc] # pyftpdlib is untyped
    """The spool as one session sees it: /done, /running and /layers for all, /queue for contributors, and notices.

    What is in /queue can't be read. In /running there are the logs only, to be followed with REST while they grow.
    """

    def __init__(self, spool: Spool, queue: Queue | None, board: Notices, session: Any) -> None:
        super().__init__("/", session)
        self._spool, self._queue = spool, queue
        self._notices, self._agreed = board, Agreed(board)
        self._states = ["done", "running", "layers", *(["queue"] if queue else [])]

    # -- paths: what the session says is what we say ---------------------------------------------------

    def ftp2fs(self, ftppath: str) -> str:
        """The absolute path, without "." and "..", that the session means."""
        return str(self.ftpnorm(ftppath))

    def fs2ftp(self, fspath: str) -> str:
        """The same path."""
        return fspath

    def validpath(self, path: str) -> bool:
        """Any path may be asked for; see _open."""
        return True

    def realpath(self, path: str) -> str:
        """The same path: there are no symbolic links."""
        return path

    # -- what is there -----------------------------------------------------------------------------------

    def open(self, filename: str, mode: str) -> IO[bytes]:
        """A regular file, for reading; its `name` is the session's path."""
        if filename.startswith("/queue/"):
            raise FilesystemError("A waiting job is not given out")
        if (notice := self._agreed.open(filename)) is not None:
            return notice
        # A pipe, were there one, must not be waited for: O_NONBLOCK.
        with self._explained(filename):
            file = open(filename, "rb", opener=lambda path, _: self._open(path, os.O_RDONLY | os.O_NONBLOCK))  # noqa: SIM115 - pyftpdlib closes it
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise FilesystemError("Not a file")
        return file

    def chdir(self, path: str) -> None:
        """Make `path` the directory that relative ones start from."""
        if self._queue is not None and self._queue.is_place(path):
            self.cwd = path
            return
        with self._explained(path), self._opened(path, os.O_PATH | os.O_DIRECTORY):
            self.cwd = path

    def listdir(self, path: str) -> list[str]:
        """The names in a directory, in no order."""
        if path == "/":
            return [*self._states, *self._notices.at_root()]
        if path == "/running":
            return self._spool.names("running")
        with self._opened(path, os.O_RDONLY | os.O_DIRECTORY) as directory, os.scandir(directory) as entries:
            names = [entry.name for entry in entries if _is_shown(entry) and self._is_open(f"{path}/{entry.name}")]
        return [*names, virtual_files.STATUS] if self._notices.read(f"{path}/{virtual_files.STATUS}") else names

    @contextmanager
    def scan(self, path: str) -> Iterator[Entries]:
        """The entries of a directory, in no order, each looked at when it is asked for; for any thread."""
        if _is_result(path):
            # What is on the disk is what is shown: no need to walk to each. They are good while the descriptor is open.
            with self._opened(path, os.O_RDONLY | os.O_DIRECTORY) as directory, os.scandir(directory) as entries:
                yield (entry if _is_shown(entry) else None for entry in entries)
        elif self._queue is not None and self._queue.is_place(path):
            yield (Walked(name, partial(_itself, found)) for name, found in self._queue.entries(path))
        else:
            yield (Walked(name, partial(self.lstat, f"{path}/{name}")) for name in self.listdir(path))

    def version(self, path: str) -> tuple[tuple[int, int], int] | None:
        """Which directory `path` is, and when it changed; both the same, its entries look the same to everyone.

        None where this doesn't hold: only results never change, and are shown to all alike.
        """
        if not _is_result(path):
            return None
        # One that is a directory is opened to be read, so that its time is that by now (see files.changed_ns).
        with self._opened(path, os.O_RDONLY | os.O_NONBLOCK) as directory:
            status = os.fstat(directory)
        return (status.st_dev, status.st_ino), status.st_mtime_ns

    def lstat(self, path: str) -> os.stat_result:
        """The status of a file or directory."""
        if self._queue is not None and self._queue.name(path) is not None:
            return self._queue.stat(path)
        if (notice := self._notices.stat(path)) is not None:
            return notice
        with self._opened(path, os.O_PATH) as descriptor:
            status = os.fstat(descriptor)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise _missing(path)
        return status

    def stat(self, path: str) -> os.stat_result:
        """The same: there are no symbolic links."""
        return self.lstat(path)

    def isfile(self, path: str) -> bool:
        """Whether `path` is a regular file."""
        return stat.S_ISREG(self._mode(path))

    def isdir(self, path: str) -> bool:
        """Whether `path` is a directory."""
        return stat.S_ISDIR(self._mode(path))

    def getsize(self, path: str) -> int:
        """Size in bytes, as SIZE tells it: whoever then continues an upload, or fetches a file, goes by it."""
        if (agreed := self._agreed.size(path)) is not None:
            return agreed
        size_bytes = self.lstat(path).st_size
        if self._queue is not None and (name := self._queue.name(path)) is not None:
            self._queue.told[name] = size_bytes
        return size_bytes

    def getmtime(self, path: str) -> float:
        """When it was last changed, in seconds since 1970."""
        return self.lstat(path).st_mtime

    def get_user_by_uid(self, uid: int) -> str:
        """The owner that LIST shows: who the host's users are is nobody's business."""
        return "construir"

    def get_group_by_gid(self, gid: int) -> str:
        """The group that LIST shows."""
        return "construir"

    def why_not(self, path: str, error: Exception) -> str:
        """Why `path` could not be had, in words for its reply."""
        if self._queue is None and (path == PLACE or path.startswith(f"{PLACE}/")):
            return absence.NOT_FOR_ANYONE
        return absence.words(self._spool, path, error)

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        """What isn't there, or is no file, is a FilesystemError, whose words pyftpdlib replies."""
        try:
            yield
        except IsADirectoryError as error:
            raise FilesystemError(_A_DIRECTORY) from error
        except FileNotFoundError as error:
            raise FilesystemError(self.why_not(path, error)) from error

    # -- the walk ------------------------------------------------------------------------------------------

    def _mode(self, path: str) -> int:
        try:
            return self.lstat(path).st_mode
        except OSError:
            return 0

    def _names(self, path: str) -> list[str]:
        """The names to walk through from the spool's directory. Raises FileNotFoundError for what isn't shown."""
        names = [name for name in path.split("/") if name]
        if not self._is_open(path):
            raise _missing(path)
        if names[:1] == ["running"] and len(names) > 1:
            return [*self._place_of(names[1], path), *names[2:]]
        return names

    def _place_of(self, job_id: str, path: str) -> tuple[str, ...]:
        """The names to walk through to a job that runs, which is in a directory of its node."""
        job = self._spool.find_job("running", job_id)
        if job is None:
            raise _missing(path)
        return job.path.relative_to(self._spool.path).parts

    def _is_open(self, path: str) -> bool:
        """Whether this session may know of `path`, should it be there."""
        names = [name for name in path.split("/") if name]
        if (names and names[0] not in self._states) or any(name.startswith(".") for name in names):
            return False
        if names[:1] == ["queue"]:
            return len(names) == 1  # the rest is the Queue's
        return names[:1] != ["running"] or len(names) <= 2 or (len(names) == 3 and names[2] in _LIVE)

    def _open(self, path: str, flags: int) -> int:
        """A descriptor of what `path` names. Raises OSError."""
        *names, last = self._names(path) or ["."]
        directory = os.open(self._spool.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in names:
                parent, directory = directory, os.open(name, _STEP, dir_fd=directory)
                os.close(parent)
            return os.open(last, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        finally:
            os.close(directory)

    @contextmanager
    def _opened(self, path: str, flags: int) -> Iterator[int]:
        descriptor = self._open(path, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _is_shown(entry: os.DirEntry[str]) -> bool:
    is_plain = entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
    return is_plain and not entry.name.startswith(".")


def _itself(status: os.stat_result) -> os.stat_result:
    return status


def _is_result(path: str) -> bool:
    return path == "/done" or path.startswith("/done/")


def _missing(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
