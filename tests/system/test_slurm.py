"""Promises of nodes that Slurm starts: whatever of Slurm or of the appliance is killed, each job has one result."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from construir_ftp.jobs import nodes, pilots, places
from tests.support import machines, slurm, slurm_accounts
from tests.support.appliance import CONFIG, NAME, PASSWORD, Appliance, construir
from tests.support.farm import results, wait_until
from tests.support.images import job_directory, run
from tests.support.pilots import children
from tests.support.slurm import Slurm

pytestmark = pytest.mark.root("namespaces, and Slurm's daemons in them, are root's")

LEASE_S = 15
# Jobs run on pilots alone: four of them at most, two on each of Slurm's nodes.
CLUSTER = f"""{CONFIG}
[nodes]
lease = "{LEASE_S}s"
renew = "1s"
admit = ["*"]
[slurm]
max_pilots = 4
memory = "1900MiB"
time = "1h"
idle = "5s"
every = "2s"
partition = "pilots"
""".replace("[machine]", '[machine]\nmemory = "512MiB"\nscratch = "256MiB"')
JOB = b"#!/bin/sh\necho begun\nsleep 2\necho done >done.txt\n"
HANGS = b"#!/bin/sh\necho begun\nsleep 1000\n"
JOBS = 40


class Front(Appliance):
    """An appliance in the namespaces of a Slurm. Its FTP server can be reached from there alone."""

    def __init__(self, place: Path, config: str, cluster: Slurm) -> None:
        super().__init__(place, config)
        self.cluster = cluster

    def start(self, within: Sequence[str] = ()) -> None:
        super().start([*within, *self.cluster.words()])

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal, as its parts are if it is SIGKILL, and wait for its end."""
        assert self.process is not None
        (serve,) = children(self.process.pid)
        doomed = [serve, *children(serve)] if how == signal.SIGKILL else [serve]
        for pid in doomed:
            os.kill(pid, how)
        return self.process.wait(60)

    def send(self, uploads: Sequence[Path]) -> list[str]:
        """Have curl send jobs, in one session; their ids."""
        address = f"ftp://127.0.0.1:{self.port}/queue/"
        argv = ["curl", "-v", "--user", f"{NAME}:{PASSWORD}", "-T", f"{{{','.join(map(str, uploads))}}}", address]
        done = subprocess.run(self.cluster.words(*argv), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return re.findall(r"^< 226 Accepted as job ([^\s,]+)", done.stderr, re.MULTILINE)

    def wait_for(self, count: int) -> None:
        """Wait until there are so many results."""
        wait_until(lambda: len(results(self)) >= count, self.logs)

    def states(self) -> dict[str, list[str]]:
        return {**super().states(), "running": places.names(self.spool, "running")}

    def pilots(self) -> list[str]:
        """How each pilot is."""
        return sorted(pilot.state for pilot in pilots.read(self.spool).pilots)

    def logs(self) -> str:
        """The ends of all logs."""
        others = [path.read_text()[-3000:] for path in sorted((self.spool / "pilots").glob("*.log"))]
        told = [self.log.read_text()[-6000:], *others, self.cluster.logs(), str(self.states())]
        return "\n".join([*told, str(pilots.read(self.spool))])


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Slurm]:
    with slurm.running(tmp_path / "slurm") as running:
        yield running


@contextmanager
def serving(place: Path, config: str, cluster: Slurm) -> Iterator[Front]:
    """An appliance that runs no jobs itself."""
    with Front(place, config, cluster).running() as appliance:
        wait_until(lambda: (appliance.spool / "nodes" / places.LOCAL).is_dir(), appliance.log.read_text)
        construir("node", "drain", places.LOCAL, f"--spool={appliance.spool}", check=True)
        yield appliance


@pytest.fixture(params=machines.KINDS, ids=["default", "user-mode"])
def kind(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue("uml_base" if request.param else "base")
    return str(request.param)


@pytest.fixture
def front(tmp_path: Path, cluster: Slurm, kind: str) -> Iterator[Front]:
    with serving(tmp_path, machines.config(kind, CLUSTER), cluster) as appliance:
        yield appliance


def uploads(place: Path, count: int, script: bytes = JOB) -> list[Path]:
    """So many jobs, all the same."""
    first = place / "job-0.img"
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", job_directory(place / "job", script), first, "4M")
    others = [place / f"job-{number}.img" for number in range(1, count)]
    for other in others:
        other.hardlink_to(first)
    return [first, *others]


def pilot_processes(front: Front) -> list[int]:
    """The nodes that run as pilots."""
    found, wanted = [], {b"serve", b"node", f"--spool={front.spool}".encode()}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if wanted <= set(words):
            found.append(int(path.parent.name))
    return found


def test_a_job_has_slurm_start_a_node_which_ends_when_it_is_idle(front: Front, tmp_path: Path) -> None:
    (job,) = front.send(uploads(tmp_path, 1))
    front.wait_for(1)
    assert results(front) == [job]
    told = msgspec.json.decode((front.spool / "done" / job / "result.json").read_bytes())
    assert told["status"] == "success", told
    wait_until(lambda: not front.pilots(), front.logs)
    assert front.cluster.living() == []
    # By itself, and in good order.
    assert [told["job_state"] for told in front.cluster.jobs()] in (["COMPLETED"], [["COMPLETED"]])
    wait_until(lambda: nodes.names(front.spool) == [places.LOCAL], front.logs)


@pytest.mark.slow("forty jobs, and a minute of leases")
def test_whatever_is_killed_forty_jobs_have_one_result_each(front: Front, tmp_path: Path) -> None:
    cluster, jobs = front.cluster, front.send(uploads(tmp_path, JOBS))
    assert len(set(jobs)) == JOBS
    front.wait_for(3)

    cluster.kill("slurmctld")
    front.wait_for(6)
    cluster.start("slurmctld")
    front.wait_for(9)

    cluster.kill("n1")
    front.wait_for(12)
    cluster.start("n1")
    front.wait_for(15)

    os.kill(pilot_processes(front)[0], signal.SIGKILL)
    front.wait_for(18)

    front.stop(signal.SIGKILL)
    front.start()
    front.wait_for(24)

    for pilot in cluster.living():
        cluster.run("scontrol", "requeue", str(pilot["job_id"]))
    front.wait_for(JOBS)

    assert results(front) == sorted(jobs)
    for job in jobs:
        told = msgspec.json.decode((front.spool / "done" / job / "result.json").read_bytes())
        assert told["status"] == "success", told
    assert {**front.states(), "done": []} == {"incoming": [], "queue": [], "running": [], "done": []}
    wait_until(lambda: not front.pilots(), front.logs)
    assert cluster.living() == []


def begun(front: Front) -> list[Path]:
    """The jobs that have said something on a pilot."""
    outputs = (path / "output.log" for path in places.jobs(front.spool, "running"))
    return [path.parent for path in outputs if path.exists() and path.read_bytes()]


@pytest.mark.slow("a time limit of Slurm's has minutes")
def test_before_its_time_is_over_a_pilot_gives_its_job_back(kind: str, cluster: Slurm, tmp_path: Path) -> None:
    # Slurm sends the signal up to a minute earlier than it is asked to (sbatch(1), --signal).
    config = machines.config(kind, CLUSTER.replace('time = "1h"', 'time = "3min"\ndrain = "100s"'))
    with serving(tmp_path, config, cluster) as front:
        (job,) = front.send(uploads(tmp_path, 1, HANGS))
        wait_until(lambda: begun(front), front.logs)
        (first,) = (pilot.name for pilot in pilots.read(front.spool).pilots)
        wait_until(lambda: first not in [pilot.name for pilot in pilots.read(front.spool).pilots], front.logs)
        wait_until(lambda: begun(front), front.logs)
        (again,) = begun(front)
        assert (again.name, (again / "attempts").read_bytes()) == (job, b"."), "nobody's fault"
        assert places.node_of(again.parent) != first
        (ended,) = [told["job_state"] for told in cluster.jobs() if told["name"].endswith(first)]
        assert ended in ("COMPLETED", ["COMPLETED"])


@pytest.mark.slow("other people's jobs, and a pilot that is queued anew, take a minute")
def test_other_peoples_jobs_come_first_and_the_pilot_comes_back(front: Front, tmp_path: Path) -> None:
    (job,) = front.send(uploads(tmp_path, 1, HANGS))
    wait_until(lambda: begun(front), front.logs)
    before = [path.parent for path in begun(front)]
    other = tmp_path / "other"
    argv = ("sbatch", "--partition=main", "--nodes=2", "--exclusive", "--output=/dev/null")
    front.cluster.run(*argv, f"--wrap=touch {other}; sleep 3")
    wait_until(other.exists, front.logs)
    wait_until(lambda: begun(front) and begun(front)[0].parent not in before, front.logs)
    (again,) = begun(front)
    assert (again.name, (again / "attempts").read_bytes()) == (job, b"."), "nobody's fault"
    assert results(front) == []


@pytest.mark.slow("a database for accounts, and pauses between one refusal and the next")
def test_why_slurm_refuses_an_account_is_told_and_jobs_run_once_it_is_let(tmp_path: Path, uml_base: object) -> None:
    """Where the operator looks, in Slurm's own words; and who waits is told that it is Slurm."""
    told = tmp_path / "told"
    command = f"(echo $CONSTRUIR_KINDS: $CONSTRUIR_SUBJECT; cat) >>{told}"
    config = machines.config("uml", CLUSTER).replace("[slurm]\n", '[slurm]\naccount = "nobody"\n')
    config += f'[notify]\njobs = false\ncommand = ["sh", "-c", "{command}"]\n'
    with slurm_accounts.running(tmp_path / "slurm") as cluster, serving(tmp_path, config, cluster) as front:
        first, second = uploads(tmp_path, 2)
        (job,) = front.send([first])
        refusal = "Invalid account or account/partition combination specified"
        wait_until(lambda: refusal in status(front), front.logs)
        (line,) = [line for line in status(front).splitlines() if refusal in line]
        assert line.startswith("Slurm takes no pilot: sbatch: error: ")
        waits = cluster.run("curl", "-sS", f"ftp://127.0.0.1:{front.port}/status.json")
        assert "Slurm takes no pilot" in waits
        assert refusal not in waits
        wait_until(lambda: told.exists() and refusal in told.read_text(), front.logs)
        assert told.read_text().startswith("pilots: ")
        slurm_accounts.let(cluster, "nobody")
        front.wait_for(1)
        assert front.log.read_text().count(f"construir.pilots: {line}\n") == 1
        assert "Slurm takes no pilot" not in status(front)
        wait_until(lambda: not front.pilots(), front.logs)
        slurm_accounts.manage(cluster, "modify", "user", "root", "set", "MaxSubmitJobs=0")
        front.send([second])
        wait_until(lambda: "Slurm takes no pilot: sbatch: error: " in status(front), front.logs)
        assert "Job violates accounting/QOS policy" in status(front)
        assert results(front) == [job]


def status(front: Front) -> str:
    return construir("status", f"--spool={front.spool}", check=True).stdout
