"""Base images are built anew by the schedule: when they are due, one at a time, and again when it failed."""

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from construir_ftp import files
from construir_ftp.appliance.refresher import Refresher
from construir_ftp.image import baseimage
from tests.support.baseimages import publish
from tests.support.ftpclient import wait_until

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two base images, made a moment ago."""
    for name in ("first", "second"):
        publish(tmp_path / "images", name, {"file": "content"})
    return tmp_path / "images"


@contextmanager
def refresher(images: Path, every_s: float, script: str) -> Iterator[Refresher]:
    """One whose builds are a script, which has the image's name as its argument."""
    with closing(Refresher(images, every_s, ["sh", "-c", script, "sh"])) as made:
        yield made


def stamped(images: Path, name: str, age_s: float) -> None:
    """Note that a build of `name` was begun so long ago."""
    stamp = images / f".refreshed-{name}"
    stamp.touch()
    os.utime(stamp, (time.time() - age_s, time.time() - age_s))


def made_older(images: Path, name: str, by_s: float) -> None:
    """Have an image have been built so much earlier."""
    manifest = baseimage.find(images, name).manifest
    old = msgspec.structs.replace(manifest, created=manifest.created - timedelta(seconds=by_s))
    files.replace_durably(images / name / baseimage.MANIFEST, msgspec.json.encode(old))


def look_until(worker: Refresher, path: Path, text: str) -> None:
    """Look again and again, as the janitor does, until a file says so."""

    wait_until(lambda: looked(worker) and path.exists() and path.read_text() == text, text)


def looked(worker: Refresher) -> bool:
    worker.look()
    return True


def test_image_is_built_when_it_is_older_than_it_may_be_and_once(images: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with refresher(images, HOUR_S, f"echo $1 >>{log}") as worker:
        worker.look()
        assert not log.exists()
        for name, age_s in (("first", 3 * HOUR_S), ("second", 2 * HOUR_S)):
            made_older(images, name, age_s)
        look_until(worker, log, "first\nsecond\n")
        worker.look()
        worker.look()
    assert log.read_text() == "first\nsecond\n"


def test_no_image_is_built_unless_it_is_wanted(images: Path, tmp_path: Path) -> None:
    with refresher(images, 0, f"touch {tmp_path}/log") as worker:
        worker.look()
        worker.look()
    assert not (tmp_path / "log").exists()
    assert not list(images.glob(".refreshed-*"))


def test_restart_does_not_begin_again_what_was_begun(images: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        stamped(images, name, HOUR_S)
    with refresher(images, DAY_S, f"touch {tmp_path}/log") as worker:
        worker.look()
    assert not (tmp_path / "log").exists()


def test_build_that_failed_is_tried_again_a_day_later(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made_older(images, "first", 31 * DAY_S)
    with refresher(images, 30 * DAY_S, f"echo $1 >{tmp_path}/log; exit 7") as worker:
        look_until(worker, tmp_path / "log", "first\n")
        wait_until(lambda: looked(worker) and caplog.text, "it has failed")
    assert "base image 'first': no new version (exit status 7), it stays as it is; the next try is in 24" in caplog.text
    due_s = (images / ".refreshed-first").stat().st_mtime + 30 * DAY_S
    assert due_s == pytest.approx(time.time() + DAY_S, abs=60)


def test_build_ends_with_the_janitor(images: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with refresher(images, 0.01, f"echo $$ >{log}; exec sleep 600") as worker:
        time.sleep(0.02)
        worker.look()
        wait_until(lambda: log.exists() and log.read_text().endswith("\n"), "it is at work")
    assert not Path(f"/proc/{log.read_text().strip()}").exists()
