"""From the reply 226 to the first line of run.sh, cold and pooled, against the bare kernel's boot to its init.

Run from the repository: .venv/bin/python -m tests.bench.boot [ROUNDS]
"""

import time
from datetime import datetime
from pathlib import Path

from construir_ftp import pack
from construir_ftp.machine import guest
from construir_ftp.machine.qemu import Shape
from tests import bench
from tests.appliance import CONFIG, WARM, Appliance
from tests.bench import Row, bare
from tests.machines import JOBS

# For a clone to get ready, while there is nothing to do.
SETTLE_S = 4.0


def bare_boot_s(shape: Shape, initrd: Path) -> float:
    """Seconds from starting QEMU, unjailed, to the first word of an init that does nothing else."""
    line = f"{guest.kernel_line(shape.accelerator)} rdinit=/{bare.INIT}"
    with bare.no_jail():
        return bare.said_s(shape, ["-kernel", shape.base.kernel, "-initrd", initrd, "-append", line], bare.INIT_SAYS)


def made(place: Path, config: str) -> Appliance:
    place.mkdir()
    return Appliance(place, config)


def first_line_s(appliance: Appliance, upload: Path, boot_path: str) -> float:
    """Seconds from the moment the client has read 226 to the first byte that run.sh printed."""
    job = appliance.submit(upload)
    accepted = time.time()
    result = appliance.wait(job)
    assert result["boot_path"] == boot_path
    return datetime.fromisoformat(result["first_output"]).timestamp() - accepted


def pooled_s(appliance: Appliance, upload: Path) -> float:
    """The same, when there has been time for a machine to get ready."""
    time.sleep(SETTLE_S)
    return first_line_s(appliance, upload, "pooled")


def main(rounds: int) -> None:
    shape, reason = bench.machine()
    with bench.workplace() as place:
        upload, initrd = place / "hello.img.zst", bare.tiny_init(place, shape.base.initrd)
        pack.pack(JOBS / "hello", upload, 2**20)
        boots, waits = (made(place / name, config) for name, config in (("boots", CONFIG), ("waits", WARM)))
        rows = [
            Row("(a) bare kernel, QEMU start to init", lambda: bare_boot_s(shape, initrd)),
            Row("226 to the first line, cold", lambda: first_line_s(boots, upload, "cold"), "at most 1.5 (a)"),
            Row("226 to the first line, pooled", lambda: pooled_s(waits, upload)),
        ]
        with boots.running(), waits.running():
            boots.wait(boots.submit(upload))
            waits.wait(waits.submit(upload))
            time.sleep(SETTLE_S)
            lines = bench.take_turns(rows, rounds)
    bench.print_table(f"a job by FTP; {reason}", lines)


if __name__ == "__main__":
    main(*bench.counts(20))
