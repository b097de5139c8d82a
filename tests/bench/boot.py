"""From the reply 226 to the first line of run.sh on a cold boot, against the bare kernel's boot to its init.

Run from the repository: .venv/bin/python -m tests.bench.boot [ROUNDS]
"""

import time
from datetime import datetime
from pathlib import Path

from construir_ftp import pack
from construir_ftp.machine import guest
from construir_ftp.machine.qemu import Shape
from tests import bench
from tests.appliance import CONFIG, Appliance
from tests.bench import Row, bare
from tests.machines import JOBS


def bare_boot_s(shape: Shape, initrd: Path) -> float:
    """Seconds from starting QEMU, unjailed, to the first word of an init that does nothing else."""
    line = f"{guest.kernel_line(shape.accelerator)} rdinit=/{bare.INIT}"
    with bare.no_jail():
        return bare.said_s(shape, ["-kernel", shape.base.kernel, "-initrd", initrd, "-append", line], bare.INIT_SAYS)


def first_line_s(appliance: Appliance, upload: Path) -> float:
    """Seconds from the moment the client has read 226 to the first byte that run.sh printed."""
    job = appliance.submit(upload)
    accepted = time.time()
    printed = datetime.fromisoformat(appliance.wait(job)["first_output"])
    return printed.timestamp() - accepted


def main(rounds: int) -> None:
    shape, reason = bench.machine()
    with bench.workplace() as place:
        upload, initrd = place / "hello.img.zst", bare.tiny_init(place, shape.base.initrd)
        pack.pack(JOBS / "hello", upload, 2**20)
        appliance = Appliance(place, CONFIG.replace("[machine]", "[machine]\nwarm = false"))
        rows = [
            Row("(a) bare kernel, QEMU start to init", lambda: bare_boot_s(shape, initrd)),
            Row("226 to the first line of run.sh", lambda: first_line_s(appliance, upload), "at most 1.5 (a)"),
        ]
        with appliance.running():
            first_line_s(appliance, upload)
            lines = bench.take_turns(rows, rounds)
    bench.print_table(f"cold boot; {reason}", lines)


if __name__ == "__main__":
    main(*bench.counts(20))
