"""The floors that benchmarks compare with: no jail, and QEMU with nothing of ours in its guest."""

import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from construir_ftp import process
from construir_ftp.jail import jail
from construir_ftp.jail.bubblewrap import Means
from construir_ftp.jail.cell import Cell
from construir_ftp.jail.jail import Jail
from construir_ftp.jail.prisoner import Prisoner
from construir_ftp.machine import qemu, qemu_engine
from construir_ftp.machine.shape import Shape

_SILENCE_S = 60.0
_LOADED_AT = 0x400000

INIT, INIT_SAYS = "tiny-init", b"init is up"


class _NoJail(Jail):
    """Programs run as they are, and see all there is."""

    @contextmanager
    def hold(self, cell: Cell, argv: Sequence[str | Path], **streams: Any) -> Iterator[Prisoner]:
        """Like Jail.hold."""
        with process.spawn(argv, **streams) as child:
            try:
                yield Prisoner(child, self.means, None, None)
            finally:
                child.kill()


@contextmanager
def no_jail() -> Iterator[None]:
    """Meanwhile nothing is jailed that otherwise would be: the difference is what a jail costs."""
    real = jail.host()
    jail._host._jail = _NoJail(Means(walls="none"))
    try:
        yield
    finally:
        jail._host._jail = real


def said_s(shape: Shape, boot: Sequence[str | Path], mark: bytes, also_readable: tuple[Path, ...] = ()) -> float:
    """Seconds from before QEMU's start to the moment its guest's serial port has said `mark`; it is killed then.

    `boot` takes the place of -kernel and what belongs to it; a jail lets QEMU read the files in `also_readable`.
    """
    with ExitStack() as stack:
        pairs = {name: socket.socketpair() for name in qemu.WIRES}
        for end in (end for pair in pairs.values() for end in pair):
            stack.enter_context(end)
        fds = {name: theirs.fileno() for name, (_, theirs) in pairs.items()}
        argv = [*_without_kernel(qemu.argv(shape, fds)), *boot]
        cell = qemu_engine._cell(shape)
        cell = msgspec.structs.replace(cell, readable=(*cell.readable, *also_readable))
        console = pairs["console"][0]
        console.settimeout(_SILENCE_S)
        begun = time.monotonic()
        stack.enter_context(jail.host().hold(cell, argv, pass_fds=list(fds.values())))
        said = b""
        while mark not in said:
            try:
                said += console.recv(4096)
            except TimeoutError as late:
                raise TimeoutError(f"the guest has not said {mark!r}, but {said[-400:]!r}") from late
        return time.monotonic() - begun


def _without_kernel(argv: list[str]) -> list[str]:
    kept = list(argv)
    for option in ("-kernel", "-initrd", "-append"):
        at = kept.index(option)
        del kept[at : at + 2]
    return kept


def first_instruction_s(shape: Shape, kernel: Path) -> float:
    """Seconds from before QEMU's start to the first byte from a guest whose first instructions write it."""
    return said_s(shape, ["-kernel", kernel], b"!", also_readable=(kernel,))


def floor_s(shape: Shape, kernel: Path) -> float:
    """The same, not jailed."""
    with no_jail():
        return first_instruction_s(shape, kernel)


def tiny_kernel(place: Path) -> Path:
    """An ELF kernel with a PVH entry (docs/misc/pvh in Xen) that writes a ! to the serial port and stops."""
    code = bytes.fromhex("66baf803b021eef4ebfd")  # mov $0x3f8,%dx; mov $'!',%al; out %al,(%dx); hlt; jmp
    entry = 0x100000
    note = (4).to_bytes(4, "little") + (4).to_bytes(4, "little") + (18).to_bytes(4, "little") + b"Xen\0"
    note += (entry + 0x1000).to_bytes(4, "little")
    header = b"\x7fELF\x01\x01\x01" + bytes(9)
    header += b"".join(
        value.to_bytes(size, "little")
        for value, size in (
            *((2, 2), (3, 2), (1, 4), (entry + 0x1000, 4), (52, 4), (0, 4), (0, 4)),
            *((52, 2), (32, 2), (2, 2), (0, 2), (0, 2), (0, 2)),
        )
    )
    load = (1, 0x1000, entry + 0x1000, entry + 0x1000, len(code), len(code), 7, 0x1000)
    notes = (4, 0x200, entry + 0x200, entry + 0x200, len(note), len(note), 4, 4)
    segments = b"".join(value.to_bytes(4, "little") for segment in (load, notes) for value in segment)
    path = place / "tiny"
    path.write_bytes((header + segments).ljust(0x200, b"\0") + note.ljust(0xE00, b"\0") + code)
    return path


def tiny_init(place: Path, initrd: Path) -> Path:
    """An initramfs with all that is in `initrd`, and INIT: it says INIT_SAYS and waits for ever.

    The kernel takes several cpio archives one after the other (Documentation/driver-api/early-userspace/buffer-format).
    """
    code = bytes.fromhex("b801000000bf01000000488d3510000000ba0a0000000f05")  # write(1, INIT_SAYS, 10)
    code += bytes.fromhex("b8220000000f05ebf7")  # pause(), for ever
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _LOADED_AT + 0x78, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = 0x78 + len(code) + len(INIT_SAYS)
    header += struct.pack("<IIQQQQQQ", 1, 5, 0, _LOADED_AT, _LOADED_AT, size, size, 0x1000)
    init = place / INIT
    init.write_bytes(header + code + INIT_SAYS)
    init.chmod(0o755)
    made = subprocess.run(["cpio", "-oH", "newc"], input=INIT.encode(), cwd=place, capture_output=True, check=True)
    whole = place / "initrd"
    whole.write_bytes(initrd.read_bytes() + made.stdout)
    return whole
