"""From the reply 226 to the first line of run.sh on a cold boot, against the bare kernel's boot to its init.

Run from the repository: .venv/bin/python -m tests.bench.boot [ROUNDS]
"""

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from construir_ftp import image, pack
from construir_ftp.config import Config
from construir_ftp.machine import accelerator, qemu
from construir_ftp.machine.qemu import Shape
from tests.appliance import CONFIG, Appliance

HELLO = Path(__file__).parents[1] / "jobs" / "hello"
MARK = b"init-is-up"


def bare_boot_s(shape: Shape) -> float:
    """Seconds from starting QEMU to the first words of an init that does nothing else (busybox echo)."""
    pairs = {name: socket.socketpair() for name in qemu.WIRES}
    argv = qemu.argv(shape, {name: theirs.fileno() for name, (_, theirs) in pairs.items()})
    line = argv.index("-append") + 1
    argv[line] += f" rdinit=/bin/busybox -- echo {MARK.decode()}"
    begun = time.monotonic()
    fds = [theirs.fileno() for _, theirs in pairs.values()]
    with subprocess.Popen(argv, pass_fds=fds, stderr=subprocess.DEVNULL, start_new_session=True) as machine:
        said = b""
        while MARK not in said:
            said += pairs["console"][0].recv(4096)
        took = time.monotonic() - begun
        os.killpg(machine.pid, signal.SIGKILL)
    for ends in pairs.values():
        for end in ends:
            end.close()
    return took


def first_line_s(appliance: Appliance, upload: Path) -> float:
    """Seconds from the moment the client has read 226 to the first byte that run.sh printed."""
    job = appliance.submit(upload)
    accepted = time.time()
    printed = datetime.fromisoformat(appliance.wait(job)["first_output"])
    return printed.timestamp() - accepted


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
        max_disk_bytes=2**30,
    )
    bare, ours = [], []
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        place = Path(name)
        upload = place / "hello.img.zst"
        pack.pack(HELLO, upload, 2**20)
        appliance = Appliance(place, CONFIG.replace("[machine]", "[machine]\nwarm = false"))
        appliance.start()
        first_line_s(appliance, upload)
        for _ in range(rounds):
            bare.append(bare_boot_s(shape))
            ours.append(first_line_s(appliance, upload))
        appliance.stop()
    base_ms, our_ms = statistics.median(bare) * 1000, statistics.median(ours) * 1000
    print(f"{choice.reason}; medians of {rounds} pairs")
    print(f"bare kernel, QEMU start to init    {base_ms:8.0f} ms   1.00")
    print(f"226 to the first line of run.sh    {our_ms:8.0f} ms   {our_ms / base_ms:.2f}   (aim: at most 1.50)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
