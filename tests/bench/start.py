"""From the start of a job to the first line of its run.sh: cold, warm and pooled, in the jail.

Against (a) QEMU's start to the guest's first instruction. Run from the repository:
.venv/bin/python -m tests.bench.start [ROUNDS]
"""

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from construir_ftp import image
from construir_ftp.config import Config
from construir_ftp.machine import accelerator, qemu
from construir_ftp.machine.qemu import Shape
from construir_ftp.machine.template import Template
from construir_ftp.machine.vm import Assignment, Machine

ECHO = "#!/bin/sh\necho first line\n"
# A waiting machine has waited: what its host had in its caches is gone.
IDLE_S = 1.0


def floor_s(shape: Shape, kernel: Path) -> float:
    """Seconds from starting QEMU, unjailed, to the first byte of a guest whose first instruction writes it."""
    pairs = {name: socket.socketpair() for name in qemu.WIRES}
    argv = qemu.argv(shape, {name: theirs.fileno() for name, (_, theirs) in pairs.items()})
    for option in ("-kernel", "-initrd", "-append"):
        at = argv.index(option)
        del argv[at : at + 2]
    argv += ["-kernel", str(kernel)]
    begun = time.monotonic()
    fds = [theirs.fileno() for _, theirs in pairs.values()]
    with subprocess.Popen(argv, pass_fds=fds, stderr=subprocess.DEVNULL, start_new_session=True) as machine:
        pairs["console"][0].settimeout(30)
        pairs["console"][0].recv(1)
        took = time.monotonic() - begun
        os.killpg(machine.pid, signal.SIGKILL)
    for ends in pairs.values():
        for end in ends:
            end.close()
    return took


def tiny_kernel(place: Path) -> Path:
    """An ELF kernel with a PVH entry (docs/misc/pvh in Xen) that writes one byte to the serial port and stops."""
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


def assignment(place: Path) -> Assignment:
    job, disk = place / "job", place / "disk.img"
    if not job.exists():
        job.mkdir()
        (job / "run.sh").write_text(ECHO)
        (job / "run.sh").chmod(0o755)
    for old in (disk, place / "output.log", place / "console.log"):
        old.unlink(missing_ok=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext2", "-d", job, disk, "4M"], check=True, capture_output=True)
    return Assignment(
        disk=disk,
        filesystem="ext2",
        hostname="bench",
        timeout_s=60,
        idle_timeout_s=60,
        boot_timeout_s=60,
        output=place / "output.log",
        console=place / "console.log",
        log_head_bytes=2**16,
        log_tail_bytes=2**16,
    )


def first_line_s(machine: Machine, task: Assignment, begun: float) -> float:
    printed = machine.run(task).first_output
    assert printed is not None
    return printed - begun


def cold_s(shape: Shape, task: Assignment) -> float:
    begun = time.time()
    with Machine.start(shape) as machine:
        return first_line_s(machine, task, begun)


def warm_s(template: Template, task: Assignment) -> float:
    begun = time.time()
    with template.clone() as machine:
        return first_line_s(machine, task, begun)


def pooled_s(template: Template, task: Assignment) -> float:
    with template.waiting() as machine:
        time.sleep(IDLE_S)
        return first_line_s(machine, task, time.time())


def main(rounds: int) -> None:
    config = Config()
    base = image.find(config.images_path(), config.images.default)
    choice = accelerator.choose(config.machine, config.images_path(), base)
    shape = Shape(
        qemu=config.machine.qemu,
        base=base,
        accelerator=choice.accelerator,
        memory_bytes=int(config.machine.memory),
        cpus=config.machine.cpus,
        scratch_bytes=int(config.machine.scratch),
        max_disk_bytes=int(config.gate.max_image),
    )
    template = Template.build(shape, 60)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        place = Path(name)
        kernel = tiny_kernel(place)
        rows: dict[str, Callable[[], float]] = {
            "(a) QEMU start to first guest instruction": lambda: floor_s(shape, kernel),
            "pooled": lambda: pooled_s(template, assignment(place)),
            "warm": lambda: warm_s(template, assignment(place)),
            "cold": lambda: cold_s(shape, assignment(place)),
        }
        taken: dict[str, list[float]] = {row: [] for row in rows}
        for _ in range(rounds):
            for row, measure in rows.items():
                taken[row].append(measure())
    template.close()
    print(f"{choice.reason}; to the first line of run.sh, jailed; medians of {rounds}")
    floor_ms = statistics.median(next(iter(taken.values()))) * 1000
    for row, values in taken.items():
        ms = statistics.median(values) * 1000
        print(f"{row:44} {ms:8.0f} ms {ms / floor_ms:8.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
