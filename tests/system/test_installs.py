"""Installs of packages have a place of their own: who needs none never waits for one, and contributors take turns."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from construir_ftp.ftp.users import Users
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs.spool import Spool
from tests.support import machines
from tests.support.appliance import CONFIG, PASSWORD, Appliance, construir, paused_runner
from tests.support.debarchive import DebArchive
from tests.support.hostilearchive import HostileArchive
from tests.system.test_dependencies import upload


@pytest.fixture(scope="module")
def one_slot(tmp_path_factory: pytest.TempPathFactory, light_base: BaseImage) -> Iterator[Appliance]:
    """One machine at a time, one install beside it, and an archive: one package takes a minute, others none."""
    place = tmp_path_factory.mktemp("installs")
    archive = DebArchive(place / "archive")
    archive.add("sleeper", "sleep 3600")
    for number in range(4):
        archive.add(f"quick{number}")
    appliance = Appliance(
        place, machines.light(CONFIG.replace("slots = 2", "slots = 1") + '[layers]\ntimeout = "25s"\n')
    )
    archive.serve(Spool.prepare(appliance.spool).path, light_base)
    with appliance.running():
        Users(appliance.spool / "users.toml").add("bob", PASSWORD)
        yield appliance


def asking(place: Path, *packages: str) -> Path:
    return upload(place, "true", f"[dependencies]\npackages = {list(packages)}" if packages else "")


def wait_until_told(appliance: Appliance, job: str, words: str) -> None:
    deadline = time.monotonic() + 60
    with appliance.session() as ftp:
        while words not in (said := ftp.sendcmd(f"SITE STATUS {job}")):
            assert time.monotonic() < deadline, said
            time.sleep(0.1)


def test_job_that_needs_no_packages_does_not_wait_for_an_install(one_slot: Appliance, tmp_path: Path) -> None:
    installing = one_slot.submit(asking(tmp_path / "slow", "sleeper"))
    waiting = one_slot.submit(asking(tmp_path / "next", "quick0"))
    wait_until_told(one_slot, installing, "its Debian packages are being installed")
    plain = one_slot.wait(one_slot.submit(asking(tmp_path / "plain"), contributor="bob"))
    assert plain["status"] == "success"
    assert {installing, waiting} <= {*one_slot.states()["queue"], *one_slot.states()["running"]}
    slow, following = one_slot.wait(installing), one_slot.wait(waiting)
    assert (slow["status"], following["status"]) == ("dependency-failed", "success")
    assert plain["published"] < slow["published"] < following["published"]


def test_installs_of_two_contributors_take_turns(one_slot: Appliance, tmp_path: Path) -> None:
    with paused_runner(one_slot):
        alice = [one_slot.submit(asking(tmp_path / f"a{number}", f"quick{number}")) for number in (1, 2)]
        bob = one_slot.submit(asking(tmp_path / "b", "quick3"), contributor="bob")
    ended = sorted((one_slot.wait(job)["published"], job) for job in (*alice, bob))
    assert [job for _, job in ended].index(bob) <= 1


def test_whoever_waits_is_told_how_far_an_install_is(one_slot: Appliance, tmp_path: Path) -> None:
    job = one_slot.submit(asking(tmp_path / "slow", "sleeper"))
    wait_until_told(one_slot, job, "being installed: step 2 of 2, setting up sleeper; see /running/")
    assert one_slot.wait(job)["status"] == "dependency-failed"


def test_cancelled_job_ends_its_install(one_slot: Appliance, tmp_path: Path) -> None:
    job = one_slot.submit(asking(tmp_path / "slow", "sleeper"))
    wait_until_told(one_slot, job, "its Debian packages are being installed")
    with one_slot.session() as ftp:
        ftp.rmd(f"/running/{job}")
    assert one_slot.wait(job)["status"] == "cancelled"
    log = one_slot.log.read_text()
    assert f"job {job} of alice: taken, for its packages\n" in log
    assert ": installing 1 packages for sleeper\n" in log


@contextmanager
def hostile(place: Path, base: BaseImage, layers: str) -> Iterator[tuple[Appliance, HostileArchive]]:
    """An appliance that takes packages from a server; one of them trickles."""
    debs = DebArchive(place / "archive")
    debs.add("slow")
    debs.add("quick")
    appliance = Appliance(place, machines.light(CONFIG.replace("slots = 2", "slots = 1") + f"[layers]\n{layers}\n"))
    with HostileArchive(debs.place).serving() as server:
        server.habits["slow_1.0_all.deb"] = "trickles"
        debs.serve(Spool.prepare(appliance.spool).path, base, server.url)
        with appliance.running():
            Users(appliance.spool / "users.toml").add("bob", PASSWORD)
            yield appliance, server


def test_install_begins_as_soon_as_the_job_before_it_has_gone_to_a_slot(light_base: BaseImage, tmp_path: Path) -> None:
    archive = DebArchive(tmp_path / "archive")
    archive.add("first")
    archive.add("second")
    appliance = Appliance(tmp_path, machines.light(CONFIG + 'scan_every = "1d"\n'))
    archive.serve(Spool.prepare(appliance.spool).path, light_base)
    with appliance.running():
        with paused_runner(appliance):
            wanted = '[dependencies]\npackages = ["{}"]'
            runs = appliance.submit(upload(tmp_path / "first", "sleep 3600", wanted.format("first")))
            follows = appliance.submit(upload(tmp_path / "second", "true", wanted.format("second")))
        wait_until_told(appliance, follows, "waits for the place where packages are installed, which another job has")
        assert appliance.wait(follows)["status"] == "success"
        with appliance.session() as ftp:
            assert "is running" in ftp.sendcmd(f"SITE STATUS {runs}"), "nothing but the first one's step has woken it"
            ftp.rmd(f"/running/{runs}")
        assert appliance.wait(runs)["status"] == "cancelled"


def wait_until_asked(server: HostileArchive, name: str) -> None:
    deadline = time.monotonic() + 300
    while name not in server.asked:
        assert time.monotonic() < deadline, server.asked
        time.sleep(0.1)


def test_packages_that_trickle_end_their_own_job_and_the_next_install_goes_on(
    light_base: BaseImage, tmp_path: Path
) -> None:
    with hostile(tmp_path, light_base, 'min_fetch_rate = "50B"\nfetch_rate_window = "10s"') as (appliance, server):
        trickling = appliance.submit(asking(tmp_path / "slow", "slow"))
        wait_until_asked(server, "slow_1.0_all.deb")
        following = appliance.submit(asking(tmp_path / "quick", "quick"), contributor="bob")
        failed, succeeded = appliance.wait(trickling), appliance.wait(following)
    assert (failed["status"], succeeded["status"]) == ("dependency-failed", "success")
    assert "the package archive (127.0.0.1) sent" in failed["reason"], failed
    assert failed["published"] < succeeded["published"]


def test_cancel_and_stop_end_what_waits_for_an_archive_at_once(light_base: BaseImage, tmp_path: Path) -> None:
    with hostile(tmp_path, light_base, 'fetch_rate_window = "1h"\ninstalls = 2') as (appliance, server):
        cancelled = appliance.submit(asking(tmp_path / "slow", "slow"))
        wait_until_asked(server, "slow_1.0_all.deb")
        waiting = appliance.submit(asking(tmp_path / "too", "slow"), contributor="bob")
        wait_until_told(appliance, waiting, "its Debian packages are being installed")
        server.asked.clear()
        with appliance.session() as ftp:
            ftp.rmd(f"/running/{cancelled}")
        assert appliance.wait(cancelled)["status"] == "cancelled"
        wait_until_asked(server, "slow_1.0_all.deb")
        assert appliance.stop() == 0
        assert appliance.states()["queue"] == [waiting]
        assert f"job {waiting}: back in the queue: the runner is stopping" in appliance.log.read_text()
        assert "a slot does not end" not in appliance.log.read_text()


def test_drained_appliance_ends_an_install_and_its_job_and_begins_no_other(one_slot: Appliance, tmp_path: Path) -> None:
    job = one_slot.submit(asking(tmp_path / "slow", "sleeper"))
    wait_until_told(one_slot, job, "its Debian packages are being installed")
    other = one_slot.submit(asking(tmp_path / "next", "quick1"))
    options = (f"--spool={one_slot.spool}", f"--config={one_slot.config}")
    try:
        said = construir("drain", *options, check=True).stdout
        assert said.endswith("nothing runs, 1 wait; stop construir serve now, or go on with: construir resume\n")
        assert one_slot.wait(job)["status"] == "dependency-failed", "its install ended as it would have"
        assert one_slot.states()["queue"] == [other]
    finally:
        construir("resume", *options, check=True)
    assert one_slot.wait(other)["status"] == "success"
