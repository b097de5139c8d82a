"""Control groups: memory, processes and CPU time of everything in a jail together.

A group is made below the one this process is in, so that what the host laid down for us holds for our
machines too. That takes version 1 hierarchies that may be written to, or a version 2 group that was delegated to us
(systemd: Delegate=yes). Where neither is to be had, `find` says why, and what would help.
Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/; systemd.io/CGROUP_DELEGATION.
"""

import errno
import fnmatch
import itertools
import os
import re
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from construir_ftp.errors import ConstruirError
from construir_ftp.jail import orphans

CONTROLLERS = ("memory", "pids", "cpu")
# Only weighs, and only in version 2; whoever runs without it lacks no limit.
_WEIGHING = ("io",)
# Where this process itself moves in a delegated group: only groups without processes may limit those below.
_OWN_GROUP = "construir-owner"
_PREFIX = "construir."
_PERIOD_US = 100_000
_END_S = 10.0
_ADVICE = "run it in a systemd unit with Delegate=yes, or by: systemd-run --scope -p Delegate=yes construir serve"
_serial = itertools.count()


class Place(msgspec.Struct, frozen=True):
    """Where groups can be made: for each controller to be had, the directory to make them in.

    `parents` also has those without a controller: a version 2 group can always be killed as one.
    """

    version: int
    controllers: dict[str, Path]
    parents: tuple[Path, ...]


class _Mount(msgspec.Struct, frozen=True):
    """A mounted cgroup hierarchy: which part of it is where; version 1 with its controllers."""

    root: Path
    point: Path
    version: int
    controllers: tuple[str, ...]


# -- finding a place ---------------------------------------------------------------------------------------


def find() -> Place:
    """A place for groups. Raises ConstruirError, saying what to do, where this process may not make any."""
    memberships = _memberships()
    mounts = _mounts()
    own = {controller: _own(mounts, memberships, controller) for controller in CONTROLLERS}
    version_1 = {controller: path for controller, path in own.items() if path and os.access(path, os.W_OK)}
    if version_1:
        return Place(1, version_1, tuple(dict.fromkeys(version_1.values())))
    own_2 = _own(mounts, memberships, "")
    if own_2 is None:
        raise ConstruirError(f"no cgroup of this user's to be had; {_ADVICE}")
    return delegated(own_2)


def delegated(own: Path) -> Place:
    """The place that the version 2 group `own`, or the one above it, is, if it was delegated to us.

    All processes in it are moved one level down, so that its controllers can be handed on. Raises ConstruirError.
    """
    top = next((path for path in (own, own.parent) if _is_delegated(path)), None)
    if top is None:
        raise ConstruirError(f"this cgroup is not ours to divide; {_ADVICE}")
    _move_down(top)
    wanted = [name for name in (*CONTROLLERS, *_WEIGHING) if name in (top / "cgroup.controllers").read_text().split()]
    with suppress(OSError):  # somebody else's process has come back: those already handed on still are
        (top / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in wanted))
    handed_on = (top / "cgroup.subtree_control").read_text().split()
    return Place(2, {name: top for name in wanted if name in handed_on}, (top,))


def _is_delegated(group: Path) -> bool:
    try:
        return os.access(group / "cgroup.procs", os.W_OK) and os.getxattr(group, "user.delegate") == b"1"
    except OSError:
        return False


def _move_down(top: Path) -> None:
    below = top / _OWN_GROUP
    below.mkdir(exist_ok=True)
    for pid in _members(top):
        with suppress(ProcessLookupError):
            (below / "cgroup.procs").write_text(str(pid))


def _memberships() -> dict[str, Path]:
    """Controller -> path of our group in its hierarchy, "" for version 2 (cgroups(7), /proc/PID/cgroup)."""
    memberships: dict[str, Path] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        memberships |= {name: Path(path) for name in names.split(",")}
    return memberships


def _mounts() -> list[_Mount]:
    """All cgroup hierarchies that are mounted (proc(5), /proc/PID/mountinfo)."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, point = (Path(_unescaped(word)) for word in before.split()[3:5])
        if kind in ("cgroup", "cgroup2"):
            mounts.append(_Mount(root, point, 2 if kind == "cgroup2" else 1, tuple(options.split(","))))
    return mounts


def _unescaped(word: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), word)


def _own(mounts: list[_Mount], memberships: dict[str, Path], controller: str) -> Path | None:
    """The directory of our group for a version 1 controller, or for "" of version 2; None where there is none."""
    path = memberships.get(controller)
    for mount in mounts:
        fits = mount.version == 1 and controller in mount.controllers if controller else mount.version == 2
        if path is not None and fits and path.is_relative_to(mount.root):
            own = mount.point / path.relative_to(mount.root)
            if own.is_dir():
                return own
    return None


# -- a group -----------------------------------------------------------------------------------------------


class Group:
    """A group of ours: made empty, entered by a jail before it starts, removed once nothing in it lives."""

    def __init__(self, place: Place) -> None:
        self._place = place
        name = f"{_PREFIX}{orphans.owner()}.{next(_serial)}"
        self._directories = {parent: parent / name for parent in place.parents}
        for directory in self._directories.values():
            directory.mkdir()

    def entrances(self) -> list[Path]:
        """The files a process writes its number (or 0) to, to be in the group with all it starts from then on."""
        return [directory / "cgroup.procs" for directory in self._directories.values()]

    def limit(self, memory_bytes: int | None, processes: int | None, cpus: float | None) -> None:
        """Lay down limits, as far as there are controllers; None is none. Memory includes swap and files in a tmpfs."""
        if memory_bytes is not None:
            # memory.memsw is memory and swap together, memory.swap swap alone; a kernel may have neither.
            self._set("memory", ("memory.limit_in_bytes", "memory.max"), memory_bytes)
            self._set("memory", ("memory.memsw.limit_in_bytes", ""), memory_bytes)
            self._set("memory", ("", "memory.swap.max"), 0)
        if processes is not None:
            self._set("pids", ("pids.max", "pids.max"), processes)
        if cpus is not None:
            quota_us = int(cpus * _PERIOD_US)
            self._set("cpu", ("cpu.cfs_period_us", ""), _PERIOD_US)
            self._set("cpu", ("cpu.cfs_quota_us", ""), quota_us)
            self._set("cpu", ("", "cpu.max"), f"{quota_us} {_PERIOD_US}")

    def yield_to_others(self) -> None:
        """Have what is in here get processor and disk as far as nobody else wants them."""
        self._set("cpu", ("cpu.shares", ""), 2)
        self._set("cpu", ("", "cpu.weight"), 1)
        self._set("io", ("", "io.weight"), "default 1")

    def in_force(self, controller: str) -> bool:
        """Whether the kernel bounds what is in this group, by what it says itself."""
        files = {"memory": ("memory.limit_in_bytes", "memory.max"), "pids": ("pids.max", "pids.max")}
        said = self._read(controller, files.get(controller, ("cpu.cfs_quota_us", "cpu.max")))
        # Version 1 calls unlimited memory 2**63 - 1, in whole pages.
        return bool(said) and not said.startswith(("max", "-1")) and int(said.split()[0]) < 2**62

    def peak_memory_bytes(self) -> int | None:
        """The most memory there was in use at once, cached files included; None where the kernel does not say."""
        said = self._read("memory", ("memory.max_usage_in_bytes", "memory.peak"))
        return int(said) if said else None

    def out_of_memory(self) -> bool:
        """Whether the kernel killed something in here because it was over its memory limit."""
        said = self._read("memory", ("memory.oom_control", "memory.events"))
        return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in said.splitlines())

    def members(self) -> list[int]:
        """Processes in the group."""
        return _members(next(iter(self._directories.values())))

    def remove(self) -> None:
        """Kill what is in the group, and remove it."""
        for directory in self._directories.values():
            _remove(directory)

    def _file(self, controller: str, names: tuple[str, str]) -> Path | None:
        parent = self._place.controllers.get(controller)
        name = names[self._place.version - 1]
        path = self._directories[parent] / name if parent and name else None
        return path if path and path.exists() else None

    def _set(self, controller: str, names: tuple[str, str], value: int | str) -> None:
        path = self._file(controller, names)
        if path:
            path.write_text(str(value))

    def _read(self, controller: str, names: tuple[str, str]) -> str:
        path = self._file(controller, names)
        return path.read_text() if path else ""


def sweep() -> list[Path]:
    """Remove the groups of owners that are gone, and kill what is in them; returns those that were there.

    Looks everywhere: an owner may have been in another group than this process is.
    """
    used = [mount.point for mount in _mounts() if mount.version == 2 or {*CONTROLLERS} & {*mount.controllers}]
    # Groups of others come and go meanwhile: os.walk passes by what has vanished, where Path.rglob fails.
    found = [
        Path(parent, name)
        for point in used
        for parent, names, _ in os.walk(point)
        for name in fnmatch.filter(names, f"{_PREFIX}*-*.*")
        if os.access(Path(parent, name), os.W_OK) and orphans.is_gone(name.removeprefix(_PREFIX).rpartition(".")[0])
    ]
    for path in found:
        _remove(path)
    return found


def _members(group: Path) -> list[int]:
    try:
        return [int(word) for word in (group / "cgroup.procs").read_text().split()]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return []
        raise


def _remove(group: Path) -> None:
    """Raises ConstruirError if something in it can't be killed. A process that just died still counts for a moment."""
    deadline = time.monotonic() + _END_S
    while group.exists():
        for pid in _members(group):
            orphans.kill(pid)
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ConstruirError(f"cgroup {group} can't be removed: {error.strerror}") from error
            time.sleep(0.001)
