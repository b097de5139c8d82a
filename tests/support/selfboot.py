"""Disks that boot by themselves, in a QEMU as anyone would start it, with a console on a serial port."""

import os
import re
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from construir_ftp.diskimage import extfs
from construir_ftp.image import bootdisk
from construir_ftp.image.rootdisk import RootDisk
from tests.support.images import run

BOOT_S = 180
UEFI = Path("/usr/share/ovmf/OVMF.fd")
_DOWN = b"\x1b[B"


class Booted:
    """A machine that was started from its disks, and its console."""

    def __init__(self, qemu: "subprocess.Popen[bytes]") -> None:
        self._qemu = qemu
        self._from, self._to = cast(IO[bytes], qemu.stdout).fileno(), cast(IO[bytes], qemu.stdin)
        self._deadline = time.monotonic() + BOOT_S
        self.said = ""
        self._read = 0

    def expect(self, pattern: str) -> None:
        """Wait until it has said something that was not waited for before."""
        while not (found := re.compile(pattern).search(self.said, self._read)):
            assert self._hear(), f"it ended before it said {pattern!r}: {self.said[-2000:]!r}"
        self._read = found.end()

    def type(self, text: str | bytes) -> None:
        """Press keys."""
        self._to.write(text.encode() if isinstance(text, str) else text)
        self._to.flush()

    def choose_debian(self) -> None:
        """In the menu, the entry below the first."""
        self.expect("executed automatically")
        self.type(_DOWN)
        self.expect(r"\*Debian")
        self.type(b"\r")

    def wait(self) -> None:
        """Until it has switched itself off."""
        while self._hear():
            pass
        assert self._qemu.wait(30) == 0

    def _hear(self) -> bool:
        ready, _, _ = select.select([self._from], [], [], max(0, self._deadline - time.monotonic()))
        assert ready, f"it took more than {BOOT_S} s: {self.said[-2000:]!r}"
        block = os.read(self._from, 65536)
        self.said += block.decode(errors="replace")
        return bool(block)


@contextmanager
def booted(disks: Sequence[tuple[Path, str]], *, bus: str = "virtio", uefi: bool = False) -> Iterator[Booted]:
    """Start a machine of nothing but these disks (file, format), on a bus; gone at the end."""
    argv = ["qemu-system-x86_64", "-M", "pc", "-m", "512M", "-nodefaults", "-no-user-config", "-display", "none"]
    argv += ["-no-reboot", "-nic", "none", "-serial", "stdio", *(["-bios", str(UEFI)] if uefi else [])]
    argv += ["-device", "virtio-scsi-pci,id=scsi"] if bus == "scsi" else []
    for number, (path, form) in enumerate(disks):
        argv += ["-drive", f"if=none,id=disk{number},file={path},format={form},cache=unsafe"]
        argv += ["-device", f"{_DEVICES[bus]},drive=disk{number},serial=serial{number}"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as qemu:
        try:
            yield Booted(qemu)
        finally:
            qemu.kill()


_DEVICES = {"virtio": "virtio-blk-pci", "ide": "ide-hd", "nvme": "nvme", "scsi": "scsi-hd"}


def over(disk: Path, place: Path) -> Path:
    """A disk on which one can write without changing `disk`: what is written comes into the new file (qcow2)."""
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "raw", place / "over.qcow2")
    return place / "over.qcow2"


class _Partition:
    """The root file system in a disk that boots by itself."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def pread(self, size_bytes: int, offset_bytes: int) -> bytes:
        return os.pread(self._file.fileno(), size_bytes, offset_bytes + bootdisk.ROOT_AT_BYTES)


def file_on_root(disk: Path, path: str) -> bytes:
    """What is in a file of the root file system of a raw disk."""
    with disk.open("rb") as file:
        return RootDisk(extfs.Image(_Partition(file))).read(path)
