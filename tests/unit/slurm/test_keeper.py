"""Promises of the keeper of pilots, with a real Slurm: as many as are wanted, none twice, a word if there are none."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from construir_ftp.jobs.spool import Spool
from tests.support import slurm
from tests.support.pilots import CONFIG, keeping, names
from tests.support.records import send
from tests.support.slurm import Slurm

pytestmark = pytest.mark.root("namespaces, and Slurm's daemons in them, are root's")

# Each takes seconds, most of them for starts of commands.
MORE = pytest.mark.slow("a minute for all that Slurm refuses and forgets")
# A program that is no node, and does nothing.
SLEEPS = f'{CONFIG}command = ["sh", "-c", "exec sleep 1000"]\n'


@pytest.fixture(
    params=["", pytest.param("trixie", marks=pytest.mark.slow("a tree with Debian 13's Slurm takes minutes to make"))],
    ids=["here", "trixie"],
)
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Slurm]:
    with slurm.running(tmp_path / "slurm", slurm.tree(request.param) if request.param else None) as running:
        yield running


@pytest.mark.long
def test_as_many_pilots_as_jobs_wait_and_no_more_than_the_bound(cluster: Slurm, spool: Spool) -> None:
    first = send(spool)
    with keeping(cluster, spool, SLEEPS) as keeper:
        keeper.wait(lambda: keeper.states() == ["starting"], "started")
        assert keeper.in_slurm() == names(keeper.kept())
        send(spool, after_s=1, after=[first.id])  # which could not run yet
        for number in range(2, 12):
            send(spool, after_s=number)
        keeper.wait(lambda: keeper.states() == ["starting"] * 3, "three")
        keeper.wait_for_words("asked of Slurm", 3)
    # Its end is not theirs.
    assert keeper.in_slurm() == names(keeper.kept())
    (job,) = [job for job in cluster.jobs() if job["name"].endswith(names(keeper.kept())[0])]
    assert job["comment"] == f"node {names(keeper.kept())[0]} of {spool.path} on localhost"


@MORE
def test_what_waits_in_slurm_is_withdrawn_when_no_job_waits(cluster: Slurm, spool: Spool) -> None:
    cluster.run("scontrol", "update", "partitionname=pilots", "state=down")
    job = send(spool)
    with keeping(cluster, spool, SLEEPS) as keeper:
        keeper.wait(lambda: [pilot.reason for pilot in keeper.kept().pilots] == ["PartitionDown"], "held")
        spool.delete(job)
        keeper.wait(lambda: not keeper.kept().pilots, "withdrawn")
        assert keeper.in_slurm() == []


@pytest.mark.long
@pytest.mark.parametrize("killed_after", [pytest.param("asked", marks=MORE), "answered"])
def test_a_keeper_that_is_killed_starts_no_pilot_twice(cluster: Slurm, spool: Spool, killed_after: str) -> None:
    """sbatch is replaced by one that kills the keeper before, or after, the real one has done its work."""
    sbatch = cluster.place / "bin" / "sbatch"
    real = sbatch.rename(sbatch.with_name("real"))
    kill = 'kill -9 "$(pgrep -f "serve pilots" | head -n 1)"'
    work = f'{real} "$@"' if killed_after == "answered" else ":"
    sbatch.write_text(f'#!/bin/sh\n[ ! -e {cluster.place}/sane ] || exec {real} "$@"\n{work} >/dev/null\n{kill}\n')
    sbatch.chmod(0o755)
    send(spool)
    with keeping(cluster, spool, SLEEPS) as keeper:
        assert keeper.process is not None
        keeper.process.wait(180)
        (asked,) = keeper.kept().pilots
        assert (asked.state, asked.job) == ("asked", 0)
        (cluster.place / "sane").touch()
        keeper.start()
        keeper.wait(lambda: keeper.states() == ["starting"], "started once")
        assert len(cluster.jobs()) == 1
        assert (names(keeper.kept()) == [asked.name]) == (killed_after == "answered")
        assert keeper.in_slurm() == names(keeper.kept())


@pytest.mark.long
def test_a_slurm_that_does_not_answer_changes_nothing(cluster: Slurm, spool: Spool) -> None:
    send(spool)
    with keeping(cluster, spool, SLEEPS) as keeper:
        keeper.wait(lambda: keeper.states() == ["starting"], "started")
        before = keeper.kept().pilots
        # What slurmctld has not saved yet is lost with it.
        saved = cluster.place / "state" / "job_state"
        keeper.wait(lambda: saved.exists() and before[0].name.encode() in saved.read_bytes(), "saved")
        cluster.kill("slurmctld")
        send(spool, after_s=1)
        keeper.wait(lambda: keeper.kept().trouble == "Slurm does not answer", "told")
        assert keeper.kept().pilots == before
        cluster.start("slurmctld")
        keeper.wait(lambda: keeper.states() == ["starting"] * 2, "another one")
        assert (keeper.kept().trouble, keeper.kept().detail) == ("", "")
        assert keeper.in_slurm() == names(keeper.kept())


@MORE
def test_what_slurm_has_lost_is_asked_for_again(cluster: Slurm, spool: Spool) -> None:
    """A slurmctld that comes back without what it knew, as after the loss of its disk."""
    send(spool)
    with keeping(cluster, spool, SLEEPS) as keeper:
        keeper.wait(lambda: keeper.states() == ["starting"], "started")
        before = names(keeper.kept())
        cluster.kill("slurmctld")
        cluster.run("slurmctld", "-c")
        keeper.wait_for_words(f"pilot {before[0]}: Slurm does not have it")
        keeper.wait(lambda: keeper.states() == ["starting"] and names(keeper.kept()) != before, "another one")
        assert keeper.in_slurm() == names(keeper.kept())


@pytest.mark.long
@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('partition = "nowhere"', "invalid partition specified: nowhere"),
        pytest.param('options = ["--account=a", "--nodelist=n9"]', "Invalid node name specified", marks=MORE),
        pytest.param('options = ["--mem=900G"]', "Requested node configuration is not available", marks=MORE),
    ],
    ids=["partition", "node", "memory"],
)
def test_what_slurm_refuses_is_told_in_one_line_of_its_own_words(
    cluster: Slurm, spool: Spool, lines: str, says: str
) -> None:
    send(spool)
    config = SLEEPS.replace('partition = "pilots"\n', "") + f"{lines}\n"
    with keeping(cluster, spool, config) as keeper:
        keeper.wait(lambda: keeper.kept().trouble == "Slurm takes no pilot", "told")
        assert says in keeper.kept().detail
        keeper.wait(lambda: not keeper.kept().pilots, "forgotten")
        assert keeper.kept().trouble == "Slurm takes no pilot"
    (told, *_) = [line for line in keeper.log.read_text().splitlines() if "Slurm takes no pilot" in line]
    assert says in told
    assert cluster.living() == []


@pytest.mark.long
def test_a_pilot_that_can_not_start_is_told_with_its_last_words_and_not_tried_without_end(
    cluster: Slurm, spool: Spool
) -> None:
    send(spool)
    with keeping(cluster, spool, f'{CONFIG}command = ["/opt/nothing/construir"]\n') as keeper:
        keeper.wait(lambda: keeper.kept().trouble == "pilots end at their start", "told")
        assert "/opt/nothing/construir: not found" in keeper.kept().detail
        assert not keeper.kept().pilots
        keeper.kill(signal.SIGTERM)
    assert len(cluster.jobs()) == 1


@pytest.mark.long
def test_check_asks_slurm_whether_it_would_take_a_pilot(cluster: Slurm, tmp_path: Path) -> None:
    def found(text: str, within: list[str]) -> dict[str, str]:
        config = tmp_path / "check.toml"
        config.write_text(text)
        argv = [sys.executable, "-m", "construir_ftp", "check", "--json", f"--config={config}"]
        argv += [f"--spool={tmp_path}", f"--images={tmp_path}"]
        done = subprocess.run([*within, *argv], capture_output=True, text=True, timeout=180)
        (slurm_finding,) = [one for one in msgspec.json.decode(done.stdout) if one["subject"] == "Slurm"]
        return dict(slurm_finding)

    assert found(CONFIG, cluster.words())["text"] == "it would take a pilot; 3 at most are asked for"
    assert cluster.jobs() == []
    refused = found(CONFIG.replace('"pilots"', '"nowhere"'), cluster.words())
    assert refused["state"] == "problem"
    assert "invalid partition specified: nowhere" in refused["text"]
    if shutil.which("sbatch") is None:
        missing = found(CONFIG, [])
        assert (missing["text"], "apt install slurm-client" in missing["remedy"]) == ("sbatch: not installed", True)
