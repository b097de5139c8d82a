"""QEMU as an engine: a process in a jail, its monitor, and the wires out of it."""

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from construir_ftp import process
from construir_ftp.errors import ConstruirError, MachineUnavailableError
from construir_ftp.image import baseimage
from construir_ftp.jail import cell, jail
from construir_ftp.jail.prisoner import Prisoner
from construir_ftp.machine import disks, qemu, qmp
from construir_ftp.machine.qemu import WIRES, Ram
from construir_ftp.machine.shape import Shape


class QemuEngine:
    """One QEMU, of a machine that boots, becomes a template or is cloned from one."""

    ends_as_guest_likes = False

    def __init__(self, prisoner: Prisoner, wires: Mapping[str, socket.socket]) -> None:
        self.prisoner, self.wires = prisoner, wires
        self._monitor: qmp.Monitor | None = None

    @classmethod
    @contextmanager
    def start(cls, shape: Shape, ram: Ram | None = None) -> Iterator[Self]:
        """Start QEMU. On leaving the context it is dead and reaped, and its wires are closed.

        Raises MachineUnavailableError where there is no QEMU, or no jail, to be started.
        """
        if process.find(shape.program) is None:
            raise MachineUnavailableError(
                f"{shape.program}: not installed; run: apt install {shape.architecture.package}"
            )
        with ExitStack() as stack:
            pairs = {name: socket.socketpair() for name in WIRES}
            for ours, theirs in pairs.values():
                stack.callback(ours.close)
                stack.callback(theirs.close)
            fds = {name: theirs.fileno() for name, (_, theirs) in pairs.items()}
            inherited = [*fds.values(), *([ram.fd, ram.root_fd] if ram else [])]
            argv = qemu.argv(shape, fds, ram)
            try:
                stack.callback(os.close, baseimage.hold(shape.base))
                prisoner = stack.enter_context(
                    jail.host().hold(_cell(shape), argv, pass_fds=inherited, stderr=subprocess.PIPE)
                )
            except (ConstruirError, OSError) as error:
                raise MachineUnavailableError(f"QEMU can't be started: {error}; run: construir check") from error
            for _, theirs in pairs.values():
                theirs.close()
            yield cls(prisoner, {name: ours for name, (ours, _) in pairs.items()})

    def monitor(self) -> qmp.Monitor:
        """QEMU's monitor, until the machine is sealed."""
        if self._monitor is None:
            self._monitor = qmp.Monitor(self.wires["qmp"])
        return self._monitor

    def plug(self, job: int, read_only: tuple[Path, ...] = ()) -> None:
        """See Engine."""
        disks.insert(self.monitor(), job, read_only)

    def resume(self) -> None:
        """See Engine."""
        self.monitor().ask("cont")

    def seal(self) -> None:
        """See Engine."""
        self.monitor().close()


def _cell(shape: Shape) -> cell.Cell:
    return cell.machine(
        shape.program,
        base=(shape.base.root, shape.base.kernel, shape.base.initrd),
        memory_bytes=shape.memory_bytes,
        cpus=shape.cpus,
        changes_bytes=qemu.changes_bytes(shape.root_bytes),
        disk_bytes=shape.max_disk_bytes,
        kvm=shape.accelerator == "kvm",
    )
