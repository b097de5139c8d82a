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

MARK = "init-is-up"


def bare_boot_s(shape: Shape) -> float:
    """Seconds from starting QEMU to the first words of an init that does nothing else (busybox echo)."""
    line = f"{guest.kernel_line(shape.accelerator)} rdinit=/bin/busybox -- echo {MARK}"
    boot: list[str | Path] = ["-kernel", shape.base.kernel, "-initrd", shape.base.initrd, "-append", line]
    with bare.no_jail():
        return bare.said_s(shape, boot, MARK.encode())


def first_line_s(appliance: Appliance, upload: Path) -> float:
    """Seconds from the moment the client has read 226 to the first byte that run.sh printed."""
    job = appliance.submit(upload)
    accepted = time.time()
    printed = datetime.fromisoformat(appliance.wait(job)["first_output"])
    return printed.timestamp() - accepted


def main(rounds: int) -> None:
    shape, reason = bench.machine()
    with bench.workplace() as place:
        upload = place / "hello.img.zst"
        pack.pack(JOBS / "hello", upload, 2**20)
        appliance = Appliance(place, CONFIG.replace("[machine]", "[machine]\nwarm = false"))
        rows = [
            Row("(a) bare kernel, QEMU start to init", lambda: bare_boot_s(shape)),
            Row("226 to the first line of run.sh", lambda: first_line_s(appliance, upload), "at most 1.5 (a)"),
        ]
        with appliance.running():
            first_line_s(appliance, upload)
            lines = bench.take_turns(rows, rounds)
    bench.print_table(f"cold boot; {reason}", lines)


if __name__ == "__main__":
    main(*bench.counts(20))
