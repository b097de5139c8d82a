"""The command line that puts walls around a program: bubblewrap, setpriv, prlimit. Pure, but for looking at this host.

As root, bubblewrap lays the mounts as root and setpriv then drops to the uid: no directory on the way to a file need be
open to others. It does so in a user namespace in which there are only root and the jails' uids. As an
ordinary user, a user namespace is what makes the rest possible, and the uid stays.
bwrap(1), setpriv(1), prlimit(1), user_namespaces(7).
"""

import os
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from construir_ftp import process
from construir_ftp.jail import cgroup, orphans, uids
from construir_ftp.jail.cell import OTHER_LINKS, SCRATCH, Cell, Limits, system

# By root in a user namespace of our making, by root without one, by an ordinary user in one of bubblewrap's
# making, or none at all: then setpriv and prlimit do what they can.
Walls = Literal["root", "root-no-userns", "user", "none"]

# Enters the cgroups named before "--", then becomes what comes after it: nothing ever runs outside of them.
_ENTER = 'while [ "$1" != -- ]; do echo 0 >"$1" || exit; shift; done; shift; exec "$@"'
# Process 1 of a jail of root's: it stays root, for the signal that a dying parent sends (PR_SET_PDEATHSIG) reaches
# nobody whom the parent may not kill, and the kernel ends all processes with the first. The program can do it no harm.
# Without the subshell, dash would let it hear the signals that it inherits as blocked.
_KEEP = '(exec "$@"); exit $?'
# Everybody else comes first, at the processor and, where its scheduler knows priorities, at the disk.
_LOW = ("nice", "-n", "19", "ionice", "-c", "3")
_CAPABILITIES = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """What there is on this host to make walls of; `userns` is a descriptor. `reason`: why they are not better.
    `is_low` is whether what is jailed leaves processor and disk to whoever else wants them.
    """

    walls: Walls
    uids: range | None = None
    userns: int | None = None
    filter: bytes | None = None
    groups: cgroup.Place | None = None
    reason: str = ""
    no_groups: str = ""
    is_low: bool = False


def wrap(
    means: Means,
    cell: Cell,
    argv: Sequence[str | Path],
    *,
    uid: int | None = None,
    filter_fd: int | None = None,
    group: cgroup.Group | None = None,
) -> list[str]:
    """The command line that runs `argv` in a cell, as `uid` where there is one; the filter is read from `filter_fd`."""
    return [
        *(_LOW if means.is_low else ()),
        *(["setarch", "--addr-no-randomize"] if cell.fixed_addresses else []),
        *_enter(group),
        *_shed_capabilities(means),
        *_bubblewrap(means, cell, filter_fd),
        *_setpriv(means, cell, uid),
        *_prlimit(means, cell.limits, uid),
        *map(str, argv),
    ]


def has_keeper(means: Means) -> bool:
    """Whether process 1 of a jail is not the program, but the one that waits for it."""
    return means.walls.startswith("root")


def environment() -> dict[str, str]:
    """All that a program in a jail finds in its environment, and the programs that jail it."""
    return process.environment(**{orphans.VARIABLE: orphans.owner()})


def _enter(group: cgroup.Group | None) -> list[str]:
    return ["sh", "-c", _ENTER, "jail", *map(str, group.entrances()), "--"] if group else []


def _shed_capabilities(means: Means) -> list[str]:
    # bubblewrap does not work for an ordinary user with capabilities, such as a systemd unit may have.
    if means.walls != "user" or os.geteuid() == 0 or not _has_capabilities():
        return []
    return ["setpriv", "--inh-caps=-all", "--ambient-caps=-all", "--"]


def _has_capabilities() -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    return any(line.startswith("CapEff:") and int(line.split()[1], 16) for line in lines)


def _bubblewrap(means: Means, cell: Cell, filter_fd: int | None) -> list[str]:
    if means.walls == "none":
        return []
    user = {"root": ["--userns", str(means.userns)], "user": ["--unshare-user"]}.get(means.walls, [])
    # What setpriv needs to give up the rest; an ordinary user has nothing to give up, unless it is a container's root.
    kept = _CAPABILITIES if has_keeper(means) else ()
    return [
        *("bwrap", *user, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *("--cap-drop", "ALL", *(word for capability in kept for word in ("--cap-add", capability))),
        # What comes next is process 1, not a bubblewrap that waits: all in the jail ends with it, and bubblewrap after
        # it, with what was used counted (wait4(2)).
        *("--die-with-parent", "--new-session", "--as-pid-1", "--hostname", "jail", "--chdir", "/", "--clearenv"),
        *(word for name, value in environment().items() for word in ("--setenv", name, value)),
        *(["--seccomp", str(filter_fd)] if filter_fd is not None else []),
        *_mounts(cell),
        *("--", *(["sh", "-c", _KEEP, "jail"] if has_keeper(means) else [])),
    ]


def _mounts(cell: Cell) -> list[str]:
    """A root out of nothing; in the end nothing in it can be written to but what the cell says."""
    seen, links = system() if cell.system is None else ((), OTHER_LINKS)
    words = [word for link, target in links.items() for word in ("--symlink", target, str(link))]
    words += ["--proc", "/proc"] if cell.proc else []
    if cell.scratch_bytes:
        words += [*_parents(SCRATCH), "--perms", "1777", "--size", str(cell.scratch_bytes), "--tmpfs", str(SCRATCH)]
    words += ["--ro-bind", str(cell.system / "usr"), "/usr"] if cell.system else []
    shown = {"--ro-bind": (*seen, *cell.readable), "--bind": cell.writable, "--dev-bind": cell.devices}
    for option, paths in shown.items():
        for path in paths:
            words += [*_parents(path), option, str(path), str(path)]
    return [*words, "--remount-ro", "/"]


def _parents(path: Path) -> list[str]:
    # Left to itself, bubblewrap makes the directories on the way to a mount for root's eyes only.
    return [word for parent in list(path.parents)[-2::-1] for word in ("--dir", str(parent))]


def _setpriv(means: Means, cell: Cell, uid: int | None) -> list[str]:
    if uid is None and means.walls != "none":
        return []  # bubblewrap has done it
    identity = []
    if uid is not None:
        groups = uids.groups(cell.devices)
        joined = ["--groups", ",".join(map(str, groups))] if groups else ["--clear-groups"]
        identity = ["--reuid", str(uid), "--regid", str(uid), *joined, "--inh-caps=-all", "--bounding-set=-all"]
    # A change of uid has cleared the signal that bubblewrap had set (prctl(2), PR_SET_PDEATHSIG).
    return ["setpriv", *identity, "--no-new-privs", "--pdeathsig", "KILL", "--"]


def _prlimit(means: Means, limits: Limits, uid: int | None) -> list[str]:
    ceilings = {
        "core": (resource.RLIMIT_CORE, 0),
        "as": (resource.RLIMIT_AS, limits.address_bytes),
        "fsize": (resource.RLIMIT_FSIZE, limits.file_bytes),
        "nofile": (resource.RLIMIT_NOFILE, limits.open_files),
        "cpu": (resource.RLIMIT_CPU, limits.cpu_s),
        # Counted for a uid in a user namespace: with neither of its own, it would count all that this user runs.
        "nproc": (resource.RLIMIT_NPROC, limits.processes if uid is not None or means.walls == "user" else None),
    }
    lowered = {name: _lowered(what, ceiling) for name, (what, ceiling) in ceilings.items() if ceiling is not None}
    return ["prlimit", *(f"--{name}={ceiling}" for name, ceiling in lowered.items()), "--"]


def _lowered(what: int, ceiling: int) -> int:
    """A limit that may be set: not above the one this process is under."""
    hard = resource.getrlimit(what)[1]
    return ceiling if hard == resource.RLIM_INFINITY else min(ceiling, hard)
