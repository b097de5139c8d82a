"""Programs behind walls: what reads hostile bytes, and every machine.

    with jail.host().hold(cell, argv, pass_fds=...) as prisoner: ...       a machine; for tools see tools

What is in a jail dies with the *thread* that started it (PR_SET_PDEATHSIG), even by kill -9: that thread has to live as
long as the jail. The kernel ends all that is in it when process 1 of its PID namespace ends. What that leaves
open, the first milliseconds, is for `sweep`.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import msgspec

from construir_ftp import process
from construir_ftp.errors import ConstruirError
from construir_ftp.jail import bubblewrap, cgroup, orphans, seccomp, uids
from construir_ftp.jail.bubblewrap import Means
from construir_ftp.jail.cell import Cell, Limits
from construir_ftp.jail.prisoner import Prisoner

UIDS = range(1_900_000_000, 1_900_000_256)
_KVM = Path("/dev/kvm")
_TRIAL_S = 30.0
_REMEDY = "install bubblewrap (apt install bubblewrap) and allow user namespaces (sysctl user.max_user_namespaces)"

# Who ends all processes of a service, as Slurm and systemd do, sends them this. What is in a jail is not at fault then:
# it goes on, until those who wait for it have been told, too, and end it.
_OURS_TO_END = (signal.SIGTERM,)

Stream = IO[bytes] | int


class Jail:
    """How programs are jailed on this host. Safe to use from several threads."""

    def __init__(self, means: Means) -> None:
        self.means = means

    @contextmanager
    def hold(
        self,
        cell: Cell,
        argv: Sequence[str | Path],
        *,
        pass_fds: Sequence[int] = (),
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = subprocess.DEVNULL,
        stderr: Stream = subprocess.DEVNULL,
    ) -> Iterator[Prisoner]:
        """Run a program in a jail. On leaving the context it is dead and reaped, and nothing is left of its jail.

        As root, the cell's writable files belong to the jail's uid from then on. Raises ConstruirError or OSError if
        it can't be started, or no uid or cgroup is to be had.
        """
        with ExitStack() as stack:
            uid = stack.enter_context(uids.lease(self.means.uids)) if self.means.uids else None
            group = stack.enter_context(_group(self.means, cell.limits)) if self.means.groups else None
            self._prepare(cell, uid)
            with readable(cell.filter or self.means.filter) as filter_fd:
                words = bubblewrap.wrap(self.means, cell, argv, uid=uid, filter_fd=filter_fd, group=group)
                fds = [fd for fd in (*pass_fds, self.means.userns, filter_fd) if fd is not None]
                outer = process.spawn(
                    words,
                    pass_fds=fds,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    env=bubblewrap.environment(),
                    deaf_to=_OURS_TO_END,
                )
            prisoner = Prisoner(outer, self.means, uid, group)
            stack.callback(_end, prisoner)
            yield prisoner

    def _prepare(self, cell: Cell, uid: int | None) -> None:
        if uid is None:
            return
        for path in cell.writable:
            os.chown(path, uid, uid, follow_symlinks=False)
        if self.means.walls == "none":
            _check_reachable((*cell.readable, *cell.writable))


def _check_reachable(paths: tuple[Path, ...]) -> None:
    closed = {parent for path in paths for parent in path.parents if not parent.stat().st_mode & 0o001}
    if closed:
        raise ConstruirError(f"{min(closed)} is closed to others, so that nothing in it can be jailed; {_REMEDY}")


@contextmanager
def _group(means: Means, limits: Limits) -> Iterator[cgroup.Group]:
    assert means.groups is not None
    group = cgroup.Group(means.groups)
    try:
        group.limit(limits.memory_bytes, limits.processes, limits.cpus)
        if means.is_low:
            group.yield_to_others()
        yield group
    finally:
        group.remove()


@contextmanager
def readable(data: bytes | None) -> Iterator[int | None]:
    """A descriptor to read `data` from, once; less than a pipe holds."""
    if data is None:
        yield None
        return
    read_end, write_end = os.pipe()
    try:
        os.write(write_end, data)
        os.close(write_end)
        yield read_end
    finally:
        os.close(read_end)


def _end(prisoner: Prisoner) -> None:
    outer = prisoner.process
    if outer.poll() is None:
        prisoner.kill()
        outer.wait()
    for stream in (outer.stdin, outer.stdout, outer.stderr):
        if stream:
            with suppress(BrokenPipeError):
                stream.close()


# -- this host -------------------------------------------------------------------------------------------------


def find(uid_range: range = UIDS) -> Jail:
    """The best jail that works here, found by trying each with the smallest program.

    Raises ConstruirError if not even setpriv and prlimit work.
    """
    reasons: list[str] = []
    for means in _candidates(uid_range, reasons):
        problem = _problem(means)
        if not problem:
            return Jail(_grouped(msgspec.structs.replace(means, reason="; ".join(dict.fromkeys(reasons)))))
        reasons.append(problem)
        if means.userns is not None:
            os.close(means.userns)
    raise ConstruirError(f"no program can be jailed here: {'; '.join(reasons)}")


def _grouped(means: Means) -> Means:
    """The same, with cgroups where they are to be had."""
    try:
        grouped = msgspec.structs.replace(means, groups=cgroup.find())
        problem = _problem(grouped)
    except (ConstruirError, OSError) as error:
        problem = str(error)
    return msgspec.structs.replace(means, no_groups=problem) if problem else grouped


def _candidates(uid_range: range, reasons: list[str]) -> Iterator[Means]:
    """Best first; why one is not offered is added to `reasons`."""
    filter_program = seccomp.program()
    own_uids = uid_range if os.geteuid() == 0 else None
    if own_uids and not uids.are_mapped(own_uids):
        reasons.append(f"the uids from {uid_range.start} on don't exist in this container; configure others")
        own_uids = None
    if own_uids:
        try:
            userns = uids.namespace(own_uids, uids.groups((_KVM,)))
            yield Means(walls="root", uids=own_uids, userns=userns, filter=filter_program)
        except (ConstruirError, OSError) as error:
            reasons.append(f"no user namespace can be made: {error}")
        yield Means(walls="root-no-userns", uids=own_uids, filter=filter_program)
    else:
        yield Means(walls="user", filter=filter_program)
    yield Means(walls="none", uids=own_uids)


def _problem(means: Means) -> str:
    """Why nothing can be run in this jail; empty if something can."""
    try:
        with Jail(means).hold(Cell(), ["true"], stderr=subprocess.PIPE) as prisoner:
            _, said = prisoner.process.communicate(timeout=_TRIAL_S)
            status = prisoner.process.returncode
    except (ConstruirError, OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (said.decode(errors="replace").strip() or f"status {status}") if status else ""


class _Host:
    """What this process knows of its host: found once, at the first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uids = UIDS
        self._required = self._is_low = False
        self._jail: Jail | None = None

    def configure(self, uid_range: range, required: bool) -> None:
        with self._lock:
            self._uids, self._required, self._jail = uid_range, required, None

    def lower_priority(self) -> None:
        with self._lock:
            self._is_low, self._jail = True, None

    def jail(self) -> Jail:
        with self._lock:
            self._jail = self._jail or self._find()
            if self._required and self._jail.means.walls == "none":
                raise ConstruirError(f"jails are required, and can't be had: {self._jail.means.reason}; {_REMEDY}")
            return self._jail

    def _find(self) -> Jail:
        return Jail(msgspec.structs.replace(find(self._uids).means, is_low=self._is_low))


_host = _Host()


def configure(uid_range: range = UIDS, *, required: bool = False) -> None:
    """For cli, once, before anything is jailed. `required`: without walls, refuse to run what belongs in a jail."""
    _host.configure(uid_range, required)


def lower_priority() -> None:
    """Have all that is jailed from now on leave processor and disk to whoever else wants them."""
    _host.lower_priority()


def host() -> Jail:
    """The jail of this process. Raises ConstruirError, saying what to do, where one is required and not to be had."""
    return _host.jail()


def sweep() -> list[int]:
    """End what a killed process left in its jails, on the whole host; returns the processes that were there.

    For the start of the appliance, before anything is recovered that they might still write to.
    """
    left = orphans.sweep()
    cgroup.sweep()
    return left
