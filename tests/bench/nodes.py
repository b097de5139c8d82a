"""Nodes: what a job waits for one, what keeps one idle, and what each asks of the file system that all share.

1. From the reply 226 to the first line of run.sh, in a machine that waited: (a) run by the appliance itself, by a node
   beside it, on the same disk, and by one that does not hear of the job, but looks for work now and then.
2. Jobs that sleep, over four processes that claim, and publish, as nodes do; there are no machines. Printed is for how
   long one of them had nothing while jobs waited.
3. Calls of the system that name something in the spool, counted by strace: of a node with nothing to do, a second, and
   of claiming and publishing a job.

What a network adds is in none of them: nodes_nfs has that, for 1 alone. Run from the repository:
.venv/bin/python -m tests.bench.nodes [ROUNDS [JOBS [SECONDS OF 3]]]
.venv/bin/python -m tests.bench.nodes --nfs [ROUNDS]
"""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from construir_ftp.jobs.spool import Record, Spool
from construir_ftp.pack import pack
from tests import bench
from tests.bench import Line, Row, boot, nodes_nfs
from tests.support.appliance import WARM, Appliance, construir
from tests.support.farm import Node, node
from tests.support.images import job_directory

NODES = 4
SLEEP_S = 0.05
COUNTED_JOBS = 20
ONE_SLOT = WARM.replace("slots = 2", "slots = 1") + '[nodes]\nadmit = ["*"]\n'
CALLS = "%file,%desc"

# Says, a line a job, for how long it had none before, in seconds; a job that waited all the while.
CLAIMS = """
import sys, time
from pathlib import Path
from construir_ftp.jobs.spool import Spool
spool, sleep_s = Spool.find(Path(sys.argv[1]), sys.argv[2]), float(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
free_s = time.monotonic()
while (job := spool.take()) is not None:
    idle_s = time.monotonic() - free_s
    time.sleep(sleep_s)
    spool.finish(job, b'{"version": 1}')
    print(idle_s)
    free_s = time.monotonic()
"""


def enqueue(place: Path, count: int) -> Spool:
    """A spool with so many jobs, of ten contributors, that nobody will look into."""
    spool = Spool.prepare(place)
    for number in range(count):
        job = spool.receive()
        job.upload.write_bytes(b"upload")
        record = Record(
            name="sleeps.ext2",
            contributor=f"contributor-{number % 10}",
            codec="raw",
            filesystem="ext2",
            upload_bytes=6,
            image_bytes=6,
            upload_sha256="",
            received=datetime(2026, 11, 30, tzinfo=UTC) + timedelta(seconds=number),
        )
        spool.enqueue(spool.stage(job, record))
    return spool


def claimer(spool: Path, name: str, sleep_s: float, within: Sequence[str | Path] = ()) -> "subprocess.Popen[str]":
    """A process that claims, and publishes, until no job waits; it begins once it is told."""
    argv = [*within, sys.executable, "-c", CLAIMS, spool, name, str(sleep_s)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def idle_s(place: Path, jobs: int) -> tuple[list[float], float]:
    """For how long one had no job while some waited, once a job; and how long all took."""
    spool = enqueue(place, jobs)
    claimers = [claimer(place, f"node-{number}", SLEEP_S) for number in range(NODES)]
    for process in claimers:
        assert process.stdout is not None
        process.stdout.readline()
    begun_s = time.monotonic()
    for process in claimers:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[0] for process in claimers]
    assert len(spool.names("done")) == jobs
    return [float(word) for words in said for word in words.split()], time.monotonic() - begun_s


def calls(trace: Path, spool: Path) -> Counter[str]:
    """How often each call of the system named something in the spool, or a descriptor of that."""
    lines = [line.split(maxsplit=1)[1] for line in trace.read_text(errors="replace").splitlines() if " " in line]
    return Counter(line.partition("(")[0] for line in lines if str(spool) in line and "(" in line)


def claim_calls(place: Path) -> Counter[str]:
    """Those of claiming and publishing COUNTED_JOBS jobs."""
    spool, trace = enqueue(place / "counted", COUNTED_JOBS).path, place / "claims.trace"
    process = claimer(spool, "counted", 0, ["strace", "-f", "-y", f"--trace={CALLS}", "-o", trace])
    process.communicate("\n")
    return calls(trace, spool)


def idle_calls(there: Node, place: Path, seconds: int) -> Counter[str]:
    """Those of a node that has nothing to do, for so long."""
    assert there.process is not None
    trace = place / "idle.trace"
    argv: list[str | Path] = ["timeout", "--signal=INT", str(seconds), "strace", "-f", "-y", f"--trace={CALLS}"]
    subprocess.run([*argv, "-o", trace, "-p", str(there.process.pid)], check=False, stderr=subprocess.DEVNULL)
    return calls(trace, there.front.spool)


def print_calls(title: str, counted: Counter[str], parts: int) -> None:
    each = ", ".join(f"{name} {count / parts:.1f}" for name, count in counted.most_common(8))
    print(f"{title}: {counted.total() / parts:.1f} calls: {each}")


def measure_ways(place: Path, rounds: int, seconds: int) -> None:
    """1, and the first half of 3."""
    upload = place / "first.img.zst"
    pack.pack(job_directory(place / "job", bench.FIRST_LINE), upload, 2**20)
    alone, front, other = (boot.made(place / name, ONE_SLOT) for name in ("alone", "front", "other"))
    rows = [
        Row("(a) 226 to the first line, the appliance's own runner", lambda: first_line_s(alone, upload)),
        Row("226 to the first line, a node on the same disk", lambda: first_line_s(front, upload), "(a) and 100 ms"),
        Row("the same, a node that only looks for work", lambda: first_line_s(other, upload)),
    ]
    with alone.running(), front.running(), other.running():
        for appliance in (front, other):
            construir("node", "drain", "local", f"--spool={appliance.spool}", check=True)
        with node(front) as there, node(other, program=[sys.executable, "-c", nodes_nfs.DEAF]):
            for appliance in (alone, front, other):
                appliance.wait(appliance.submit(upload))
            lines = bench.take_turns(rows, rounds)
            counted = idle_calls(there, place, seconds)
    bench.print_table("a job by FTP, a machine waits for it", lines)
    print_calls("a node with nothing to do, a second", counted, seconds)


def first_line_s(appliance: Appliance, upload: Path) -> float:
    time.sleep(boot.SETTLE_S)
    return boot.first_line_s(appliance, upload, "pooled")


def main(rounds: int, jobs: int, seconds: int) -> None:
    with bench.workplace() as place:
        idle, took_s = idle_s(place / "claims", jobs)
        lines = [Line("a node has no job, the median", idle), Line("the longest", [max(idle)], "at most 1000 ms")]
        bench.print_table(f"{jobs} jobs of {SLEEP_S * 1000:g} ms, {NODES} nodes, {took_s:.1f} s in all", lines)
        print_calls("a job claimed and published", claim_calls(place), COUNTED_JOBS)
        measure_ways(place, rounds, seconds)


if __name__ == "__main__":
    if "--nfs" in sys.argv:
        sys.argv.remove("--nfs")
        nodes_nfs.measure(*bench.counts(5))
    else:
        main(*bench.counts(5, 1000, 20))
