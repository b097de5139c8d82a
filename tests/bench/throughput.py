"""Trivial jobs sent by FTP to an appliance with two slots: jobs a minute, and the processor time they cost.

Against (a) the same appliance with machine.warm = false, where each job boots its machine, on fewer jobs. Run from the
repository: .venv/bin/python -m tests.bench.throughput [JOBS [BOOTED JOBS]]

Jobs a minute: from the moment before the first upload, all over one session, to the last result in done/. Before that
one job has been run, and machines that wait have had time to get ready.

Processor time, user and system, is that of the appliance's four processes and of all children they waited for meanwhile
(utime, stime, cutime and cstime of /proc/PID/stat): judges, codecs, machines. A machine counts whole when it has ended,
so those that wait at the beginning are in it, and those that wait at the end are not. The guest's share is the sum of
cpu_seconds in the jobs' result.json: QEMU from its start on, with the programs that lock it in. The rest is ours, and a
table says whose: each part's own, and that of the children of all.
"""

import os
import time
from collections import Counter
from pathlib import Path

import msgspec

from construir_ftp.jobs.result import Result
from construir_ftp.pack import pack
from tests import bench
from tests.bench import Line
from tests.support.appliance import CONFIG, WARM, Appliance, send
from tests.support.images import job_directory

SECONDS_PER_TICK = 1 / os.sysconf("SC_CLK_TCK")
# For a template to be built and machines to get ready, while there is nothing to do.
SETTLE_S = 10.0
SILENCE_S = 300.0


class Cost(msgspec.Struct, frozen=True):
    """What so many jobs came to; seconds of processor time are per job."""

    jobs_per_minute: float
    own_s: float
    guest_s: float
    boot_paths: str
    # By process; that of their children, the guest's and what is around it, is "children".
    of_part_s: dict[str, float]


def processor_s(appliance: Appliance) -> dict[str, float]:
    """What each of its processes has used so far, and the children they have waited for (proc(5), /proc/PID/stat)."""
    assert appliance.process is not None
    used = {"children": 0.0}
    for part, pid in {"supervisor": appliance.process.pid, **appliance.parts()}.items():
        # The program's name, in brackets, may hold anything; the times are the 14th to 17th field.
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        own, children = (sum(map(int, words[first : first + 2])) * SECONDS_PER_TICK for first in (11, 13))
        used[part] = own
        used["children"] += children
    return used


def wait_for_results(appliance: Appliance, jobs: list[str]) -> list[Result]:
    """All results, once all are there."""
    done = appliance.spool / "done"
    found, deadline = -1, 0.0
    while found < len(jobs):
        time.sleep(0.02)
        count = len({path.name for path in done.iterdir()} & set(jobs))
        if count > found:
            found, deadline = count, time.monotonic() + SILENCE_S
        assert time.monotonic() < deadline, appliance.log.read_text()[-4000:]
    return [msgspec.json.decode((done / job / "result.json").read_bytes(), type=Result) for job in jobs]


def send_all(appliance: Appliance, upload: Path, count: int) -> list[str]:
    with appliance.session() as ftp:
        return [send(ftp, upload, f"job-{number}.img.zst") for number in range(count)]


def measure(place: Path, config: str, upload: Path, count: int) -> Cost:
    """Run so many jobs in an appliance of their own."""
    place.mkdir()
    with Appliance(place, config).running() as appliance:
        wait_for_results(appliance, send_all(appliance, upload, 1))
        time.sleep(SETTLE_S)
        used_before, begun = processor_s(appliance), time.monotonic()
        results = wait_for_results(appliance, send_all(appliance, upload, count))
        took_s, used_s = time.monotonic() - begun, processor_s(appliance)
    assert all(result.status == "success" for result in results), Counter(result.status for result in results)
    guest_s = sum(result.measured.cpu_seconds for result in results if result.measured)
    paths = Counter(result.boot_path for result in results)
    said = ", ".join(f"{number} {path}" for path, number in paths.items())
    own_s = {part: seconds - used_before[part] for part, seconds in used_s.items()}
    own_s["children"] -= guest_s
    of_part_s = {part: seconds / count for part, seconds in own_s.items()}
    return Cost(count * 60 / took_s, sum(of_part_s.values()), guest_s / count, said, of_part_s)


def main(jobs: int, booted_jobs: int) -> None:
    _, reason = bench.machine()
    with bench.workplace() as place:
        upload = place / "job.img.zst"
        pack.pack(job_directory(place / "job", b"#!/bin/sh\necho done\n"), upload, 2**20)
        booted = measure(place / "booted", CONFIG, upload, booted_jobs)
        cloned = measure(place / "cloned", WARM, upload, jobs)
    rows = {
        f"(a) machine.warm = false: {booted.boot_paths}": booted,
        f"machine.warm = true: {cloned.boot_paths}": cloned,
    }
    print(f"trivial jobs by FTP, two slots; {reason}")
    bench.print_table("jobs a minute", [Line(name, [cost.jobs_per_minute]) for name, cost in rows.items()], "jobs", 1)
    bench.print_table("processor time a job, ours", [Line(name, [cost.own_s]) for name, cost in rows.items()])
    bench.print_table("processor time a job, the guest's", [Line(name, [cost.guest_s]) for name, cost in rows.items()])
    whole = Line("(a) all of ours", [cloned.own_s])
    parts = [Line(part, [seconds]) for part, seconds in sorted(cloned.of_part_s.items())]
    bench.print_table("of ours, with machine.warm = true", [whole, *parts])


if __name__ == "__main__":
    main(*bench.counts(200, 20))
