"""What nodes ask of the file system that their spool is on (docs/nodes.md), tried in the spool.

All is tried in a directory that is gone afterwards. One host alone can't see what another one does there: of that only
the options say anything that it is mounted with.
"""

import errno
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from construir_ftp import files
from construir_ftp.appliance.finding import Finding, State
from construir_ftp.config import Config
from construir_ftp.errors import ConstruirError
from construir_ftp.jobs import ipc

_PREFIX = "construir-check-"
# What a check that was killed has left goes after so long. Drafts in the spool do, too: see files.sweep_drafts.
_OLD_S = 3600.0
_RIVALS, _RACES, _ROUNDS, _PATIENCE_S = 4, 5, 20, 30.0
# Longer than a tick of the clock that the times of directories are of: see files.changed_ns.
_TICK_S = 0.03
_SAMPLE = bytes(2**20)
_FEWEST_FILES = 1000
_ANOTHER = "have the spool on another file system, such as NFS 4.1 or newer"


class _Trial(NamedTuple):
    """`look` raises ConstruirError or OSError where it is not as it has to be, in a directory of its own."""

    subject: str
    look: Callable[[Path], None]
    remedy: str = _ANOTHER


def findings(config: Config, now_s: Callable[[], float] = time.time) -> Iterator[Finding]:
    """One of all that is as it has to be, and one of each that is not; none where no other computer has the spool, as
    far as is known here. `now_s` is this computer's clock.
    """
    spool = _nearest(config.spool_path())
    if files.is_local(spool) and not config.nodes.scratch:
        return
    found = [*_mounted(_options(spool)), *_tried(spool, config, now_s)]
    yield from found
    if not found:
        names = ", ".join(trial.subject for trial in _trials(config))
        yield Finding("file system", "ok", f"{spool} does what nodes ask for: {names}, clock")


def _tried(spool: Path, config: Config, now_s: Callable[[], float]) -> Iterator[Finding]:
    try:
        with _directory(spool) as place:
            for trial in _trials(config):
                yield from _attempt(trial, place)
            yield from _clock(place, config.nodes.lease, now_s)
    except OSError as error:
        text, remedy = f"nothing can be made in {spool}: {error.strerror}", "choose another place with --spool"
        if isinstance(error, PermissionError):
            remedy = f"make it writable for this user, or {remedy}"
        if os.geteuid() == 0 and isinstance(error, PermissionError):
            text, remedy = f"root can't write in {spool}: its file server takes root for another user", _UNSQUASHED
        yield Finding("file system", "problem", text, remedy)


def _attempt(trial: _Trial, place: Path) -> Iterator[Finding]:
    own = place / trial.subject.replace(" ", "-")
    own.mkdir()
    try:
        trial.look(own)
    except (ConstruirError, OSError) as error:
        said = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else error
        yield Finding(f"file system: {trial.subject}", "problem", f"{place.parent}: {said}", trial.remedy)


@contextmanager
def _directory(spool: Path) -> Iterator[Path]:
    place = spool / f"{_PREFIX}{secrets.token_hex(8)}"
    place.mkdir(mode=0o700)
    try:
        # All times are of the same clock.
        oldest_s = place.stat().st_mtime - _OLD_S
        for entry in spool.glob(f"{_PREFIX}*"):
            with suppress(OSError):
                if entry.stat().st_mtime < oldest_s:
                    files.remove(entry)
        yield place
    finally:
        files.remove(place)


def _nearest(path: Path) -> Path:
    return path if path.exists() else _nearest(path.parent)


# -- what is tried -------------------------------------------------------------------------------------------------

_UNSQUASHED = "export it with no_root_squash to the front and to each node"


def _trials(config: Config) -> tuple[_Trial, ...]:
    return (
        _Trial("rename", _rename),
        _Trial("hard link", _link),
        _Trial("fsync", _fsync, "see what keeps the file server from writing; it has to export with sync"),
        _Trial("locks", _lock, "see that the file server has locks, and mount it without nolock and local_lock"),
        _Trial("owner", lambda place: _owner(place, config.jail.first_uid), _UNSQUASHED),
        _Trial("deletion", _delete),
        _Trial("time of a directory", _change),
        _Trial("room", _room, "make room there, or raise the quota of this user"),
    )


def _rename(place: Path) -> None:
    """A directory with something in it: of several that take it one has it. Another one is never replaced by it."""
    for race in range(_RACES):
        job = place / f"job-{race}"
        job.mkdir()
        (job / "upload").write_bytes(b"whole")
        with ThreadPoolExecutor(_RIVALS) as rivals:
            had = [taken for taken in rivals.map(lambda rival, job=job: _take(job, rival), range(_RIVALS)) if taken]
        if len(had) != 1:
            raise ConstruirError(f"of {_RIVALS} that rename the same directory at the same time {len(had)} had it")
        if (had[0] / "upload").read_bytes() != b"whole" or job.exists():
            raise ConstruirError("a renamed directory is not what it was before")
    full, other = place / "full", place / "other"
    for directory in (full, other):
        directory.mkdir()
        (directory / "upload").touch()
    try:
        other.rename(full)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    else:
        raise ConstruirError("a rename replaces a directory that has something in it")
    _replace(place / "file")


def _take(job: Path, rival: int) -> Path | None:
    try:
        return job.rename(job.with_name(f"{job.name}-of-{rival}"))
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ESTALE:
            return None
        raise


def _replace(path: Path) -> None:
    files.replace(path, b"before")
    with path.open("rb") as reader:
        files.replace(path, b"after")
        if (reader.read(), files.read_anew(path)) != (b"before", b"after"):
            raise ConstruirError("a file that is replaced while it is read is not the old one there, and then the new")


def _link(place: Path) -> None:
    path, other = place / "file", place / "other"
    path.touch()
    os.link(path, other)
    if not path.samefile(other):
        raise ConstruirError("a hard link leads to another file")
    with suppress(FileExistsError):
        os.link(path, other)
        raise ConstruirError("a hard link replaces what has its name")


def _fsync(place: Path) -> None:
    files.write_durably(place / "file", b"kept")
    files.fsync(place / "file")
    files.fsync(place)


def _lock(place: Path) -> None:
    """One has it at a time, and reads what the one before has written."""
    path, count = place / "lock", place / "count"
    with ipc.hold(path):
        with suppress(BlockingIOError), ipc.hold(path):
            raise ConstruirError("a lock that is held is given to another one")
        if not ipc.is_held(path):
            raise ConstruirError("nobody is told that a lock is held")
    if ipc.is_held(path):
        raise ConstruirError("a lock outlives its holder")
    files.replace(count, b"0")
    with ThreadPoolExecutor(2) as both:
        for _ in both.map(lambda _: _count(path, count), range(2)):
            pass
    if files.read_anew(count) != b"%d" % (2 * _ROUNDS):
        raise ConstruirError("who has a lock does not read what the one before has written")


def _count(lock: Path, count: Path) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    for _ in range(_ROUNDS):
        while True:
            with suppress(BlockingIOError), ipc.hold(lock):
                files.replace(count, b"%d" % (int(files.read_anew(count)) + 1))
                break
            if time.monotonic() > deadline_s:
                raise ConstruirError(f"no lock was to be had for {_PATIENCE_S:g} s")
            threading.Event().wait(0.001)


def _owner(place: Path, other: int) -> None:
    path, ours = place / "file", os.geteuid()
    path.touch()
    if (owner := path.stat().st_uid) != ours:
        raise ConstruirError(f"what user {ours} makes there belongs to user {owner}")
    if ours:
        return
    try:
        os.chown(path, other, other)
    except OSError as error:
        raise ConstruirError(f"root can't give a file to another user: {error.strerror}") from error
    if path.stat().st_uid != other:
        raise ConstruirError("a file that root gives to another user is not that user's")


def _delete(place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"read")
    with path.open("rb") as reader:
        path.unlink()
        if path.exists() or reader.read() != b"read":
            raise ConstruirError("a file that is deleted while it is read stays, or can't be read any more")


def _change(place: Path) -> None:
    times = []
    for name in ("first", "second"):
        time.sleep(_TICK_S)
        (place / name).touch()
        files.ask_anew(place)
        times.append(place.stat().st_mtime_ns)
    if len(set(times)) < len(times):
        raise ConstruirError(f"a directory has the same time before and after a change, {_TICK_S:g} s later")


def _room(place: Path) -> None:
    files.write_durably(place / "file", _SAMPLE)
    status = os.statvfs(place)
    if status.f_files and status.f_favail < _FEWEST_FILES:
        raise ConstruirError(f"there is room for {status.f_favail} more files only")


def _clock(place: Path, lease_s: float, now_s: Callable[[], float]) -> Iterator[Finding]:
    """Ages of files are by the server's clock, and ours; what is as old as a draft of a killed writer is deleted."""
    before_s = now_s()
    (place / "new").mkdir()
    made_s, after_s = (place / "new").stat().st_mtime, now_s()
    ahead_s, behind_s = made_s - after_s, before_s - made_s
    off_s = max(ahead_s, behind_s)
    if off_s > lease_s:
        state: State = "problem" if off_s > _OLD_S else "warning"
        which = "ahead of" if ahead_s > 0 else "behind"
        text = f"{place.parent}: the clock that files have their times from is {off_s:.0f} s {which} this computer's"
        remedy = "set the clocks of this computer and of the file server by the same time, as by NTP"
        yield Finding("file system: clock", state, text, remedy)


# -- how it is mounted ---------------------------------------------------------------------------------------------

_NEWER = "mount it with vers=4.1 or newer"


def _options(path: Path) -> list[str]:
    """What an NFS is mounted with that holds a path; nothing, of another file system (proc(5), mountinfo)."""
    device = path.stat().st_dev
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, source = line.partition(" - ")
        kind, *_, options = source.split(" ")
        if mount.split()[2] == f"{os.major(device)}:{os.minor(device)}" and kind in ("nfs", "nfs4"):
            return options.split(",")
    return []


def _mounted(options: list[str]) -> Iterator[Finding]:
    wrong = {"nolock", "nocto", "soft", "softerr", "local_lock=all", "local_lock=flock", "local_lock=posix"}
    if found := sorted(wrong.intersection(options)):
        text = f"NFS is mounted with {', '.join(found)}, so that hosts do not know what others do, or lose files"
        yield Finding("file system: mount", "problem", text, f"mount it hard, without {', '.join(found)}")
    version = next((option.removeprefix("vers=") for option in options if option.startswith("vers=")), "")
    if version == "3":
        # It tells a change of a directory by the time of that alone, where newer ones count changes.
        text = "with NFS 3 a computer does not see each change of another one: jobs would wait that nobody sees"
        yield Finding("file system: mount", "problem", text, _NEWER)
    elif version.startswith("2") or version in ("4", "4.0"):
        text = f"NFS {version} was not tried: its locks depend on more than the server"
        yield Finding("file system: mount", "warning", text, _NEWER)
