"""A user-mode kernel as an engine: a process in a jail of its own kind, and the wires out of it.

It has no place for a disk that comes later. So what is started first is a small program in the jail that waits for the
disks (base-image/uml/launch), and says in the guest's place that it is ready. It becomes the kernel when the machine
is resumed, with the disks that were plugged until then.
"""

import os
import socket
import stat
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from construir_ftp.errors import ConstruirError, MachineUnavailableError
from construir_ftp.image import baseimage
from construir_ftp.jail import cell, jail, user_mode
from construir_ftp.jail import check as jailcheck
from construir_ftp.jail.prisoner import Prisoner
from construir_ftp.machine import processors, uml
from construir_ftp.machine.shape import Shape

_ORDERS = "orders"
# The tree has no locale but that of the C library itself.
_LAUNCHED = ("sh", "-c", 'LC_ALL=C exec "$@"', "launch")


class UmlEngine:
    """One user-mode kernel, or what waits to become it."""

    # A panic is an abort(3); and whoever is root in the guest has the program for their own.
    ends_as_guest_likes = True

    def __init__(
        self,
        shape: Shape,
        prisoner: Prisoner,
        ours: Mapping[str, socket.socket],
        theirs: Mapping[str, int],
        root: int,
        chosen: set[int],
    ) -> None:
        self.prisoner = prisoner
        self.wires = {name: ours[name] for name in uml.WIRES}
        self._shape, self._orders, self._theirs = shape, ours[_ORDERS], theirs
        self._processors = chosen
        # The job's first, once there is one.
        self._root, self._disks = root, list[int]()

    @classmethod
    @contextmanager
    def start(cls, shape: Shape) -> Iterator[Self]:
        """Start what becomes the kernel. On leaving the context it is dead and reaped, and its wires are closed.

        Raises MachineUnavailableError where the base image has no such kernel, or the jail is not complete.
        """
        if problem := why_none(shape.base):
            raise MachineUnavailableError(problem)
        with ExitStack() as stack:
            pairs = {name: stack.enter_context(_pair()) for name in (*uml.WIRES, _ORDERS)}
            theirs = {name: far.fileno() for name, (_, far) in pairs.items()}
            try:
                root = baseimage.hold(shape.base)
                stack.callback(os.close, root)
                prisoner = stack.enter_context(_launched(shape, theirs))
            except (ConstruirError, OSError) as error:
                raise MachineUnavailableError(f"no user-mode machine can be started: {error}") from error
            for _, far in pairs.values():
                far.close()
            chosen = stack.enter_context(processors.taken(shape.cpus))
            engine = cls(shape, prisoner, {name: near for name, (near, _) in pairs.items()}, theirs, root, chosen)
            stack.callback(engine._forget)
            yield engine

    def plug(self, job: int, read_only: tuple[Path, ...] = ()) -> None:
        """See Engine. The kernel opens its disks anew, so that those which are the job's own come to belong to it."""
        if len(read_only) > uml.MOST_READ_ONLY:
            raise MachineUnavailableError(
                f"a user-mode machine has {uml.MOST_READ_ONLY} places for layers and results, not {len(read_only)}"
            )
        self._disks.append(os.dup(job))
        self._disks += [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in read_only]
        if self.prisoner.uid is None:
            return
        for descriptor in self._disks:
            if descriptor == self._disks[0] or not os.fstat(descriptor).st_mode & stat.S_IROTH:
                os.fchown(descriptor, self.prisoner.uid, -1)

    def resume(self) -> None:
        """See Engine: the kernel starts now."""
        pid = self.prisoner.inside()
        if pid is None:
            raise MachineUnavailableError("no user-mode machine can be started: what was to become it has ended")
        words = uml.argv(self._shape, self._theirs, len(self._disks))
        try:
            os.sched_setaffinity(pid, self._processors)
            socket.send_fds(self._orders, ["\0".join(words).encode()], [self._root, *self._disks])
        except OSError as error:
            raise MachineUnavailableError(f"no user-mode machine can be started: {error.strerror}") from error
        self._forget()

    def seal(self) -> None:
        """See Engine."""
        self._orders.close()

    def _forget(self) -> None:
        for descriptor in self._disks:
            os.close(descriptor)
        self._disks = []


def why_none(base: baseimage.BaseImage) -> str:
    """Why no user-mode machine can be had of a base image, and what to do; empty if one can be."""
    if user_mode.program() is None:
        return "user-mode machines need a host of amd64, whose system calls are known"
    if not base.manifest.uml:
        return f"base image '{base.name}' has no user-mode kernel; run: construir image build --uml {base.name}"
    return ""


@contextmanager
def _pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@contextmanager
def _launched(shape: Shape, theirs: Mapping[str, int]) -> Iterator[Prisoner]:
    """What becomes the kernel, in a jail that is complete."""
    host = jail.host()
    jailcheck.demand_once(host)
    with jail.readable(user_mode.program()) as narrow:
        argv = [*_LAUNCHED, uml.PERL, uml.LAUNCH, str(theirs[_ORDERS]), str(theirs["control"]), str(narrow)]
        inherited = [*theirs.values(), *([narrow] if narrow is not None else [])]
        with host.hold(_cell(shape), argv, pass_fds=inherited, stderr=subprocess.PIPE) as prisoner:
            yield prisoner


def _cell(shape: Shape) -> cell.Cell:
    return cell.user_mode_machine(
        shape.base.uml,
        disk_bytes=shape.max_disk_bytes,
        memory_bytes=shape.memory_bytes,
        changes_bytes=uml.changes_bytes(shape.root_bytes),
    )
