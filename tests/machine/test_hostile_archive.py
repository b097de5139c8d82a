"""An archive that sends too little is given up, and named; whoever waits for one ends when told to."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from construir_ftp.errors import CommandError, ConstruirError, StoppedError
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.layers.apt import Archive, Plan
from construir_ftp.layers.apt_directory import USUAL, Pace
from construir_ftp.layers.store import ARCHIVES, Store
from tests.support import baseimages
from tests.support.debarchive import DebArchive
from tests.support.hostilearchive import HABITS, HostileArchive

LONG_S = 30.0
HASTY = Pace(1024, 1.0)
DEB = "tool_1.0_all.deb"


class Hostile:
    """An archive on this disk, a server of it, and a spool that takes packages from there."""

    def __init__(self, place: Path, server: HostileArchive, base: BaseImage) -> None:
        self.server, self._base, self._place = server, base, place / "spool/layers" / ARCHIVES

    def archive(self, pace: Pace = USUAL, stop: socket.socket | None = None) -> Archive:
        return Archive(self._place, self._base, pace=pace, stop=stop)

    def plan(self) -> Plan:
        archive = self.archive()
        archive.refresh()
        return archive.resolve(("tool",))


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Hostile]:
    debs = DebArchive(tmp_path / "debs")
    debs.add("tool")
    there = {"var/lib/dpkg/status": "", "etc/apt/sources.list": "", "etc/apt/preferences.d/none": ""}
    base = baseimages.publish(tmp_path / "images", "small", there)
    with HostileArchive(debs.place).serving() as server:
        debs.serve(tmp_path / "spool", base, server.url)
        yield Hostile(tmp_path, server, base)


@pytest.mark.parametrize("habit", HABITS)
def test_lists_that_come_too_slowly_are_the_archives_failure(hostile: Hostile, habit: str) -> None:
    hostile.server.habits = {"*": habit} if habit != "stops in the middle" else {"Packages": habit}
    begun_s = time.monotonic()
    with pytest.raises(CommandError, match=r"127\.0\.0\.1"):
        hostile.archive(HASTY).refresh()
    assert time.monotonic() - begun_s < LONG_S
    with pytest.raises(CommandError, match="failed less than 60 s ago"):
        hostile.archive().refresh()


@pytest.mark.parametrize("habit", HABITS)
def test_packages_that_come_too_slowly_are_the_archives_failure(hostile: Hostile, habit: str) -> None:
    plan = hostile.plan()
    hostile.server.habits[DEB] = habit
    if habit == "redirects":
        hostile.server.habits["*"] = habit
    begun_s = time.monotonic()
    with pytest.raises(CommandError, match=r"127\.0\.0\.1"):
        hostile.archive(HASTY).fetch(plan)
    assert time.monotonic() - begun_s < LONG_S
    hostile.server.habits.clear()
    assert [file.name for file in hostile.archive().fetch(plan)] == [DEB]


def test_an_archive_that_is_slow_and_fast_enough_is_waited_for(hostile: Hostile) -> None:
    plan = hostile.plan()
    hostile.server.habits[DEB] = "trickles"
    with patient(hostile, Pace(1, 5.0), plan) as (fetching, _):
        fetching.join(7)
        assert fetching.is_alive()


@contextmanager
def patient(hostile: Hostile, pace: Pace, plan: Plan) -> Iterator[tuple[threading.Thread, list[BaseException]]]:
    """Somebody who fetches until told to stop, as is done at the end; and what became of it."""
    stop, tell = socket.socketpair()
    ended: list[BaseException] = []

    def fetch() -> None:
        try:
            hostile.archive(pace, stop).fetch(plan)
        except ConstruirError as error:
            ended.append(error)

    fetching = threading.Thread(target=fetch)
    fetching.start()
    with stop, tell:
        try:
            while DEB not in hostile.server.asked:
                time.sleep(0.05)
            yield fetching, ended
        finally:
            tell.send(b"!")
            fetching.join(LONG_S)
            assert not fetching.is_alive()


def test_whoever_fetches_and_whoever_waits_for_him_end_when_told(hostile: Hostile) -> None:
    plan = hostile.plan()
    hostile.server.habits[DEB] = "trickles"
    with patient(hostile, USUAL, plan) as (_, ended), patient(hostile, USUAL, plan) as (_, ended_too):
        pass
    assert [type(error) for error in (*ended, *ended_too)] == [StoppedError, StoppedError]


def test_whoever_waits_for_another_ones_layer_ends_when_told(tmp_path: Path) -> None:
    layers, (stop, tell) = Store(tmp_path), socket.socketpair()
    with stop, tell, layers.alone("one"):
        threading.Timer(0.3, tell.send, [b"!"]).start()
        with pytest.raises(StoppedError), layers.alone("one", stop):
            pass
