"""QEMU's command line, built from the top by small pure functions; and what QEMU says of itself.

Every machine is the same machine, whether it boots, becomes a template or is cloned from one: with a root disk that
forgets, empty places for disks, four wires out, and nothing else.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from construir_ftp import process
from construir_ftp.errors import CommandError, MachineUnavailableError
from construir_ftp.machine import disks, guest, qmp
from construir_ftp.machine.shape import Shape

# The guest's three, and the monitor's.
WIRES = ("control", "output", "console", "qmp")
_ANSWER_S = 30.0
# The header of a qcow2 file, and the first cluster of each table.
_QCOW2_BYTES = 2**20


class Ram(msgspec.Struct, frozen=True):
    """Where a machine's memory is: a descriptor to map, for a template to be written, else copied on write. `root_fd`
    is the root disk that belongs to it, whatever has taken its name since.
    """

    fd: int
    root_fd: int
    is_template: bool


def changes_bytes(root_bytes: int) -> int:
    """The most that a file with the changes of a root disk takes (qcow2, which snapshot=on makes): every cluster of the
    disk, and of its tables, whose entries have 8 and 2 bytes for each cluster of 64 KiB, less than a thousandth.
    """
    return root_bytes + root_bytes // 1000 + _QCOW2_BYTES


def version(qemu: str, package: str) -> str:
    """The first line of what the program `qemu` says of itself. Raises MachineUnavailableError if it says nothing."""
    try:
        return process.run([qemu, "--version"], timeout_s=_ANSWER_S).partition("\n")[0]
    except CommandError as error:
        raise MachineUnavailableError(f"{error}; run: apt install {package}") from error


def argv(shape: Shape, wires: Mapping[str, int], ram: Ram | None = None) -> list[str]:
    """The whole command line of a machine; `wires` are the descriptors of WIRES. With somebody else's memory it waits
    to be given the state that belongs to it.
    """
    is_clone = ram is not None and not ram.is_template
    return [
        shape.program,
        *_machine_args(shape, ram),
        *(["-incoming", "defer"] if is_clone else _kernel_args(shape)),
        *_root_args(Path(f"/proc/self/fd/{ram.root_fd}") if ram else shape.base.root, shape.architecture.transport),
        *disks.args(shape.read_only_disks, shape.architecture.transport),
        *_wire_args(wires, shape.architecture.transport),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
    ]


def _machine_args(shape: Shape, ram: Ram | None) -> list[str]:
    kind = shape.architecture
    return [
        *("-M", f"{kind.machine}{',memory-backend=ram' if ram else ''}", "-accel", shape.accelerator),
        *("-cpu", "host" if shape.accelerator == "kvm" else kind.processor),
        *("-m", f"{shape.memory_bytes // 2**20}M", "-smp", str(shape.cpus)),
        *(_ram_args(shape, ram) if ram else []),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none"),
        # Without a source of entropy the guest's first getrandom() waits for a second.
        *("-object", "rng-random,id=entropy,filename=/dev/urandom"),
        *("-device", f"virtio-rng-{kind.transport},rng=entropy"),
    ]


def _ram_args(shape: Shape, ram: Ram) -> list[str]:
    size_bytes = shape.memory_bytes // 2**20 * 2**20
    share = "on" if ram.is_template else "off"
    return ["-object", f"memory-backend-file,id=ram,size={size_bytes},share={share},mem-path=/proc/self/fd/{ram.fd}"]


def _kernel_args(shape: Shape) -> list[str]:
    return [
        *("-kernel", str(shape.base.kernel), "-initrd", str(shape.base.initrd)),
        *("-append", guest.kernel_line(shape.architecture, shape.accelerator)),
    ]


def _root_args(root: Path, transport: str) -> list[str]:
    # In QEMU's option lists a comma is written twice. werror: see disks. Nobody writes to the file. A user-mode machine
    # of the same base image has a lock on it, beside which QEMU would not read it.
    file = str(root).replace(",", ",,")
    drive = f"if=none,id=root,file={file},file.locking=off,format=raw,snapshot=on,cache=unsafe"
    drive += ",werror=report,rerror=report"
    return ["-drive", drive, "-device", f"virtio-blk-{transport},drive=root,serial=root"]


def _wire_args(wires: Mapping[str, int], transport: str) -> list[str]:
    chardevs = [word for name in WIRES[:3] for word in ("-chardev", f"socket,id={name},fd={wires[name]}")]
    return [
        *chardevs,
        *("-device", f"virtio-serial-{transport}"),
        *("-device", f"virtserialport,chardev=control,name={guest.CONTROL_PORT}"),
        *("-device", f"virtserialport,chardev=output,name={guest.OUTPUT_PORT}"),
        *("-serial", "chardev:console"),
        *qmp.args(wires["qmp"]),
    ]
