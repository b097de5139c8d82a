"""A user-mode kernel as an engine: a process in a jail of its own kind, the wires out of it, its management console.

It boots with its root disk alone. The job's disk, and those to be read, are plugged in later. A small process in the
jail keeps them open meanwhile, so that the kernel finds them there (base-image/uml/launch).
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
from construir_ftp.image import uml as image_uml
from construir_ftp.jail import cell, jail, user_mode
from construir_ftp.jail import check as jailcheck
from construir_ftp.jail.prisoner import Prisoner
from construir_ftp.machine import processors, uml
from construir_ftp.machine.mconsole import Mconsole
from construir_ftp.machine.shape import Shape

_ORDERS, _MONITOR = "orders", "monitor"
_ORDERS_S = 10.0
_ANSWER_BYTES = 1024
# The tree has no locale but that of the C library itself.
_LAUNCHED = ("sh", "-c", 'LC_ALL=C exec "$@"', "launch")


class UmlEngine:
    """One user-mode kernel."""

    # A panic is an abort(3); and whoever is root in the guest has the program for their own.
    ends_as_guest_likes = True

    def __init__(self, prisoner: Prisoner, ours: Mapping[str, socket.socket]) -> None:
        self.prisoner = prisoner
        self.wires = {name: ours[name] for name in uml.WIRES}
        self._orders, self._monitor = ours[_ORDERS], Mconsole(ours[_MONITOR])
        self._orders.settimeout(_ORDERS_S)
        self._plugged = 0

    @classmethod
    @contextmanager
    def start(cls, shape: Shape) -> Iterator[Self]:
        """Start the kernel. On leaving the context it is dead and reaped, and its wires are closed.

        Raises MachineUnavailableError where the base image has no such kernel, or the jail is not complete.
        """
        if problem := why_none(shape.base):
            raise MachineUnavailableError(problem)
        with ExitStack() as stack:
            pairs = {name: stack.enter_context(_pair()) for name in (*uml.WIRES, _ORDERS)}
            pairs[_MONITOR] = stack.enter_context(_pair(socket.SOCK_DGRAM))
            theirs = {name: far.fileno() for name, (_, far) in pairs.items()}
            chosen = stack.enter_context(processors.taken(shape.cpus))
            try:
                with processors.starting_on(chosen):
                    prisoner = stack.enter_context(_launched(shape, theirs))
            except (ConstruirError, OSError) as error:
                raise MachineUnavailableError(f"no user-mode machine can be started: {error}") from error
            for _, far in pairs.values():
                far.close()
            yield cls(prisoner, {name: near for name, (near, _) in pairs.items()})

    def plug(self, job: int, read_only: tuple[Path, ...] = ()) -> None:
        """See Engine. The kernel opens its disks anew, so that those which are the job's own come to belong to it."""
        if len(read_only) > uml.MOST_READ_ONLY:
            raise MachineUnavailableError(
                f"a user-mode machine has {uml.MOST_READ_ONLY} places for layers and results, not {len(read_only)}"
            )
        self._unplug()
        with ExitStack() as stack:
            disks = [job]
            for path in read_only:
                disks.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                stack.callback(os.close, disks[-1])
            self._give_to_jail(disks)
            for command in uml.plug(self._hand_over(disks)):
                self._monitor.ask(command)
                self._plugged += 1

    def _unplug(self) -> None:
        """Take out those of a rehearsal."""
        for command in uml.unplug(self._plugged):
            self._monitor.ask(command)
        self._plugged = 0

    def _give_to_jail(self, disks: list[int]) -> None:
        if self.prisoner.uid is None:
            return
        for descriptor in disks:
            if descriptor == disks[0] or not os.fstat(descriptor).st_mode & stat.S_IROTH:
                os.fchown(descriptor, self.prisoner.uid, -1)

    def _hand_over(self, disks: list[int]) -> list[str]:
        """Have them kept open in the jail; returns their paths there."""
        try:
            socket.send_fds(self._orders, [b"!"], disks)
            keeper, *numbers = map(int, self._orders.recv(_ANSWER_BYTES).split())
        except (OSError, ValueError) as error:
            raise MachineUnavailableError("a user-mode machine takes no disks") from error
        return [f"/proc/{keeper}/fd/{number}" for number in numbers]

    def resume(self) -> None:
        """See Engine. It never stops."""

    def seal(self) -> None:
        """See Engine."""
        self._orders.close()
        self._monitor.close()


def why_none(base: baseimage.BaseImage) -> str:
    """Why no user-mode machine can be had of a base image, and what to do; empty if one can be."""
    if user_mode.program() is None:
        return "user-mode machines need a host of amd64, whose system calls are known"
    if not base.manifest.uml:
        return f"base image '{base.name}' has no user-mode kernel; run: construir image build --uml {base.name}"
    if not image_uml.is_understood(base.manifest.ingredients):
        remedy = f"run: construir image build --uml {base.name}"
        return f"the user-mode part of base image '{base.name}' is of another version of this program; {remedy}"
    return ""


@contextmanager
def _pair(kind: socket.SocketKind = socket.SOCK_STREAM) -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        yield ours, theirs


@contextmanager
def _launched(shape: Shape, theirs: Mapping[str, int]) -> Iterator[Prisoner]:
    """What becomes the kernel, in a jail that is complete."""
    host = jail.host()
    jailcheck.demand_once(host)
    with jail.readable(user_mode.program()) as narrow, _held(shape.base) as root:
        words = [uml.PERL, uml.LAUNCH, str(theirs[_MONITOR]), str(theirs[_ORDERS]), str(narrow)]
        words += uml.argv(shape, root, theirs)
        inherited = [*theirs.values(), root, *([narrow] if narrow is not None else [])]
        with host.hold(_cell(shape), [*_LAUNCHED, *words], pass_fds=inherited, stderr=subprocess.PIPE) as prisoner:
            yield prisoner


@contextmanager
def _held(base: baseimage.BaseImage) -> Iterator[int]:
    """A descriptor of the root disk, which is not removed as long as that is open."""
    root = baseimage.hold(base)
    try:
        yield root
    finally:
        os.close(root)


def _cell(shape: Shape) -> cell.Cell:
    return cell.user_mode_machine(
        shape.base.uml,
        disk_bytes=shape.max_disk_bytes,
        memory_bytes=shape.memory_bytes,
        changes_bytes=uml.changes_bytes(shape.root_bytes),
    )
