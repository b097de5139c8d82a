"""Which walls stand: a program is put in a jail, and the kernel asked about it from outside.

What it says of itself is not taken for anything, nor what the jail was told to do.
"""

import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import msgspec

from construir_ftp.errors import ConstruirError
from construir_ftp.jail import cgroup
from construir_ftp.jail.cell import Cell, Limits
from construir_ftp.jail.jail import Jail
from construir_ftp.jail.prisoner import Prisoner

_NAMESPACES = {"user": "user", "mnt": "mount", "pid": "process", "net": "network", "ipc": "IPC", "uts": "host name"}
_CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_OPEN_FILES = 20
_CELL = Cell(limits=Limits(open_files=_OPEN_FILES, processes=16, memory_bytes=64 * 2**20, cpus=1))


class JailPart(msgspec.Struct, frozen=True):
    """A part of the jail, whether it is in force, and why, or why not. `required`: no jail is complete without it."""

    name: str
    in_force: bool
    why: str
    required: bool = True


def in_force(jail: Jail) -> list[JailPart]:
    """All parts of the jail there could be. Raises ConstruirError if nothing can be run in it."""
    pipe = subprocess.PIPE
    with jail.hold(_CELL, ["sh", "-c", "echo; read -r _"], stdin=pipe, stdout=pipe, stderr=pipe) as prisoner:
        if not cast(IO[bytes], prisoner.process.stdout).readline():
            said = cast(IO[bytes], prisoner.process.stderr).read().decode(errors="replace").strip()
            raise ConstruirError(f"nothing can be run in a jail here: {said}")
        pid = prisoner.inside()
        if pid is None:
            raise ConstruirError("the program in the jail can't be found from outside")
        status = _status(pid)
        return [
            *_namespaces(pid, jail),
            _files(pid, jail),
            _uid(status, jail),
            *_privileges(status, jail),
            _limits(pid),
            *_cgroups(pid, prisoner, jail),
        ]


def missing(parts: list[JailPart]) -> list[JailPart]:
    """What a complete jail has and this one hasn't; cgroups are not among it, as few hosts give any."""
    return [part for part in parts if part.required and not part.in_force]


def demand(jail: Jail) -> None:
    """Raises ConstruirError, naming the parts, if the jail is not complete."""
    lacking = missing(in_force(jail))
    if lacking:
        raise ConstruirError(f"the jail is not complete: {'; '.join(f'{part.name}: {part.why}' for part in lacking)}")


@functools.cache
def demand_once(jail: Jail) -> None:
    """The same, looked at once for each jail that is complete."""
    demand(jail)


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _namespaces(pid: int, jail: Jail) -> Iterator[JailPart]:
    for kind, name in _NAMESPACES.items():
        apart = Path(f"/proc/{pid}/ns/{kind}").readlink() != Path(f"/proc/self/ns/{kind}").readlink()
        # With a uid of its own, a jail loses little without a user namespace.
        required = kind != "user" or jail.means.uids is None
        yield JailPart(f"{name} namespace", apart, "its own" if apart else jail.means.reason, required)


def _files(pid: int, jail: Jail) -> JailPart:
    inside, outside = Path(f"/proc/{pid}/root").stat(), Path("/").stat()
    apart = (inside.st_dev, inside.st_ino) != (outside.st_dev, outside.st_ino)
    return JailPart("only its own files", apart, "a root made for it" if apart else jail.means.reason)


def _uid(status: dict[str, str], jail: Jail) -> JailPart:
    uids = {int(word) for word in status["Uid"].split()}
    own = bool(jail.means.uids) and uids <= set(jail.means.uids or ()) and os.geteuid() not in uids
    if own:
        return JailPart("uid of its own", True, f"one of {len(jail.means.uids or ())}")
    if os.geteuid():
        return JailPart("uid of its own", False, "only root can give one; all jails have this user's", required=False)
    return JailPart("uid of its own", False, jail.means.reason)


def _privileges(status: dict[str, str], jail: Jail) -> Iterator[JailPart]:
    held = [name for name in _CAPABILITIES if int(status[name], 16)]
    # What could still be gained (CapBnd) can't be without new privileges, but nothing needs it either.
    yield JailPart("no capabilities", not held, f"has {', '.join(held)}" if held else "none, and none to gain")
    alone = status["NoNewPrivs"] == "1"
    yield JailPart("no new privileges", alone, "set-user-ID programs have no effect" if alone else jail.means.reason)
    filtered = status["Seccomp"] == "2"
    unknown = jail.means.reason or "the system calls of this kind of machine are not known"
    yield JailPart("system call filter", filtered, "seccomp" if filtered else unknown)


def _limits(pid: int) -> JailPart:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    wanted = {"Max open files": str(_OPEN_FILES), "Max core file size": "0"}
    seen = [
        line for line in lines if any(line.startswith(name) and value in line.split() for name, value in wanted.items())
    ]
    return JailPart("resource limits", len(seen) == len(wanted), "prlimit")


def _cgroups(pid: int, prisoner: Prisoner, jail: Jail) -> Iterator[JailPart]:
    names = {"memory": "memory limit", "pids": "process limit", "cpu": "CPU limit"}
    for controller in cgroup.CONTROLLERS:
        group = prisoner.group
        bound = group is not None and pid in group.members() and group.in_force(controller)
        why = f"cgroup version {jail.means.groups.version}" if bound and jail.means.groups else jail.means.no_groups
        yield JailPart(
            f"{names[controller]} for all of it", bound, why or f"this cgroup has no {controller} controller", False
        )
