"""The architectures that machines can have, by Debian's names, and what QEMU calls and needs for each.

Those with 64 bits whose system calls runjob knows. Nothing here says whether a host can run one.
"""

import functools
from typing import Literal

import msgspec

from construir_ftp import process
from construir_ftp.errors import UsageError


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """One of them: QEMU's name for it, the Debian package with its system emulator, and its machine: QEMU's type and,
    where QEMU emulates it, processor; how virtio devices are plugged in (`virtio-rng-device`: virtio-mmio,
    `virtio-rng-pci`), the kernel's name for the first serial line.
    """

    name: str
    qemu_name: str
    package: str
    machine: str
    processor: str
    transport: Literal["device", "pci"]
    console: str

    @property
    def qemu(self) -> str:
        """The system emulator's program."""
        return f"qemu-system-{self.qemu_name}"


KNOWN = {
    each.name: each
    for each in (
        Architecture(
            name="amd64",
            qemu_name="x86_64",
            package="qemu-system-x86",
            machine="microvm,rtc=on,acpi=on",
            # With what lacks it of x86-64-v2, which programs are built for.
            processor="qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt",
            transport="device",
            console="ttyS0",
        ),
        # The virt machines count their virtio-mmio places from the end (hw/arm/virt.c), and riscv64's has only eight.
        Architecture(
            name="arm64",
            qemu_name="aarch64",
            package="qemu-system-arm",
            machine="virt",
            # Older than "max", whose pointer authentication is dear to emulate.
            processor="cortex-a72",
            transport="pci",
            console="ttyAMA0",
        ),
        Architecture(
            name="riscv64",
            qemu_name="riscv64",
            package="qemu-system-misc",
            machine="virt",
            processor="rv64",
            transport="pci",
            console="ttyS0",
        ),
    )
}

# Debian has these too, released or not.
_OTHERS = (
    *("alpha", "armel", "armhf", "hppa", "hurd-i386", "i386", "loong64", "m68k", "mips64el", "mipsel", "powerpc"),
    *("ppc64", "ppc64el", "s390x", "sh4", "sparc64", "x32"),
)


def find(name: str) -> Architecture:
    """The architecture that Debian calls so. Raises UsageError, saying which there are."""
    try:
        return KNOWN[name]
    except KeyError as error:
        raise UsageError(f"no machine is known for the architecture '{name}'; there is: {', '.join(KNOWN)}") from error


def is_one(word: str) -> bool:
    """Whether a word is Debian's name for an architecture, known here or not."""
    return word in KNOWN or word in _OTHERS


@functools.cache
def native() -> str:
    """Debian's name for this host's."""
    return process.run(["dpkg", "--print-architecture"], timeout_s=10).strip()
