"""What kind of machine one is: all that is settled before it gets a job, whatever program runs it."""

from pathlib import Path
from typing import Literal, Self

import msgspec

from construir_ftp import architecture, files, process
from construir_ftp.architecture import Architecture
from construir_ftp.config import MachineSection
from construir_ftp.image.baseimage import ROOT, BaseImage
from construir_ftp.machine import guest

# How a machine runs its instructions; each is a row of engines.ENGINES.
Accelerator = Literal["kvm", "tcg", "uml"]


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What kind of machine: all that is settled before it gets a job. `max_disk_bytes` is the size of the largest disk
    it may be given, `read_only_disks` how many it has room for beside the job's.
    """

    program: str
    base: BaseImage
    accelerator: Accelerator
    memory_bytes: int
    cpus: int
    max_disk_bytes: int
    read_only_disks: int = 0

    @classmethod
    def of(
        cls,
        machine: MachineSection,
        base: BaseImage,
        accelerator: Accelerator,
        max_disk_bytes: int,
        read_only_disks: int = 0,
    ) -> Self:
        """The machine that a configuration asks for."""
        return cls(
            program=program_of(machine, base),
            base=base,
            accelerator=accelerator,
            memory_bytes=int(machine.memory),
            cpus=most_cpus(accelerator, machine.cpus),
            max_disk_bytes=max_disk_bytes,
            read_only_disks=read_only_disks,
        )

    @property
    def architecture(self) -> Architecture:
        """The architecture of the base image."""
        return architecture.find(self.base.manifest.architecture)

    @property
    def root_bytes(self) -> int:
        """The size of the root disk, and so the most that can be changed on it."""
        return self.base.manifest.parts[ROOT].bytes

    def key(self) -> str:
        """Changes with everything that makes a machine another one: the base image's content, the program, the
        kernel line, sizes. The state of one can only be given to another of the same key.
        """
        found = process.find(self.program)
        mark = (found, *files.mark(Path(found))) if found else None
        # A user-mode kernel has no places for disks that it has not been given.
        places = 0 if self.accelerator == "uml" else self.read_only_disks
        sizes = (self.memory_bytes, self.cpus, self.max_disk_bytes, places)
        line = guest.kernel_line(self.architecture, self.accelerator)
        base = (str(self.base.path), self.base.manifest.digest(), self.base.marks)
        return repr((mark, *base, self.accelerator, line, sizes))


def most_cpus(accelerator: str, cpus: int) -> int:
    """So many processors, or one: Debian builds the user-mode kernel for no more."""
    return 1 if accelerator == "uml" else cpus


def program_of(machine: MachineSection, base: BaseImage) -> str:
    """The emulator for a base image: the configured one if that has the host's own architecture, else QEMU's."""
    name = base.manifest.architecture
    return (name == architecture.native() and machine.qemu) or architecture.find(name).qemu
