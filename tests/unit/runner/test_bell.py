"""A node hears of a job that has come, and of one that went; nothing rings for long while nothing comes or goes."""

import select
from pathlib import Path

import pytest

from construir_ftp.runner import bell

LONG_S = 60


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    place = tmp_path / "queue"
    place.mkdir()
    return place


def test_it_rings_for_what_comes_and_goes_and_is_silent_then(queue: Path) -> None:
    with bell.of(queue) as heard:

        def rings(within_s: float) -> bool:
            if not select.select([heard], [], [], within_s)[0]:
                return False
            return bool(heard.recv(4096))

        def grows_silent() -> bool:
            return any(not rings(0.5) for _ in range(100))

        assert rings(LONG_S)  # what is there at the start
        assert grows_silent()
        (queue / "a job").mkdir()
        assert rings(LONG_S)
        assert grows_silent()
        (queue / "a job").rmdir()
        assert rings(LONG_S)


def test_a_spool_that_is_gone_for_a_while_is_glanced_at_again(queue: Path) -> None:
    with bell.of(queue) as heard:
        queue.rename(queue.with_name("away"))
        while select.select([heard], [], [], 0.5)[0]:
            heard.recv(4096)
        queue.with_name("away").rename(queue)
        (queue / "a job").mkdir()
        assert select.select([heard], [], [], LONG_S)[0]


def test_who_never_listens_holds_nothing_up(queue: Path) -> None:
    with bell.of(queue):
        for number in range(3000):
            (queue / str(number)).mkdir()
