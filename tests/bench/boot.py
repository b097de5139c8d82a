"""From the reply 226, or the start of `construir run`, to the first line of run.sh.

Against (a) QEMU's start, unjailed, to its guest's first instruction, (b) a stock Debian machine (see stock), and (c)
the bare kernel's boot to an init that does nothing. The job says its first line at once: what a job does before is its
own time. Run from the repository: .venv/bin/python -m tests.bench.boot [ROUNDS [ROUNDS OF (b)]]
"""

import time
from datetime import datetime
from pathlib import Path

import msgspec

from construir_ftp.jobs.result import Result
from construir_ftp.machine import guest
from construir_ftp.machine.shape import Shape
from construir_ftp.pack import pack
from tests import bench
from tests.bench import Row, bare, stock
from tests.support.appliance import CONFIG, WARM, Appliance, construir
from tests.support.images import job_directory

# For a clone to get ready, while there is nothing to do.
SETTLE_S = 4.0
# Machines are cloned when their job is there; none waits.
CLONES = WARM + "waiting = 0\n"


def bare_boot_s(shape: Shape, initrd: Path) -> float:
    """Seconds from starting QEMU, unjailed, to the first word of an init that does nothing else."""
    line = f"{guest.kernel_line(shape.architecture, shape.accelerator)} rdinit=/{bare.INIT}"
    with bare.no_jail():
        return bare.said_s(shape, ["-kernel", shape.base.kernel, "-initrd", initrd, "-append", line], bare.INIT_SAYS)


def made(place: Path, config: str) -> Appliance:
    place.mkdir()
    return Appliance(place, config)


def first_line(appliance: Appliance, upload: Path, *patience_s: float) -> tuple[float, str]:
    """Seconds from the moment the client has read 226 to the first byte that run.sh printed, and the boot path."""
    job = appliance.submit(upload)
    accepted = time.time()
    result = appliance.wait(job, *patience_s)
    return datetime.fromisoformat(result["first_output"]).timestamp() - accepted, result["boot_path"]


def first_line_s(appliance: Appliance, upload: Path, boot_path: str) -> float:
    """The same, by that boot path."""
    seconds, taken = first_line(appliance, upload)
    assert taken == boot_path
    return seconds


def pooled_s(appliance: Appliance, upload: Path) -> float:
    """The same, when there has been time for a machine to get ready."""
    time.sleep(SETTLE_S)
    return first_line_s(appliance, upload, "pooled")


def by_hand_s(place: Path, upload: Path) -> float:
    """Seconds from the start of `construir run` to the first byte that run.sh printed."""
    target, begun = place / f"result-{time.monotonic_ns()}", time.time()
    construir("run", upload, "-o", target, check=True)
    result = msgspec.json.decode((target / "result.json").read_bytes(), type=Result)
    assert result.first_output is not None
    return result.first_output.timestamp() - begun


def main(rounds: int, stock_rounds: int) -> None:
    shape, reason = bench.machine()
    with bench.workplace() as place:
        upload, initrd = place / "first.img.zst", bare.tiny_init(place, shape.base.initrd)
        kernel = bare.tiny_kernel(place)
        pack.pack(job_directory(place / "job", bench.FIRST_LINE), upload, 2**20)
        configs = {"boots": CONFIG, "clones": CLONES, "waits": WARM}
        boots, clones, waits = (made(place / name, config) for name, config in configs.items())
        rows = [
            Row("(a) QEMU start to first guest instruction", lambda: bare.floor_s(shape, kernel)),
            *stock.rows(place, shape, stock_rounds),
            Row("(c) bare kernel, QEMU start to init", lambda: bare_boot_s(shape, initrd)),
            Row("226 to the first line, pooled", lambda: pooled_s(waits, upload), "at most 2.5 (a), 1/200 (b)"),
            Row("226 to the first line, warm", lambda: first_line_s(clones, upload, "warm")),
            Row("226 to the first line, cold", lambda: first_line_s(boots, upload, "cold"), "at most 1.5 (c)"),
            Row("`construir run` to the first line", lambda: by_hand_s(place, upload)),
        ]
        with boots.running(), clones.running(), waits.running():
            for appliance in (boots, clones, waits):
                appliance.wait(appliance.submit(upload))
            for appliance in (clones, waits):
                appliance.wait_until_logged(f"template of {shape.base.name} built")
            lines = bench.take_turns(rows, rounds)
    bench.print_table(f"a job by FTP; {reason}", lines)


if __name__ == "__main__":
    main(*bench.counts(20, 5))
