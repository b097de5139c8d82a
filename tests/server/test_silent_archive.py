"""A package archive that says nothing keeps nobody waiting at the door but those who ask for its packages."""

import ftplib
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from construir_ftp.config import Config, ImagesSection
from tests.support import baseimages, images
from tests.support.appliance import Appliance
from tests.support.ftpclient import House, serving
from tests.support.hostilearchive import HostileArchive

PLAIN = images.image()
BASES = ("small", "other")
MANY = 5


def base_of(place: Path, url: str, name: str) -> None:
    """A base image whose archive is there."""
    there = {"bin/sh": "", "var/lib/dpkg/status": "", "etc/apt/sources.list": f"deb [trusted=yes] {url} ./\n"}
    baseimages.publish(place / "images", name, {**there, "etc/apt/preferences.d/none": name})


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[HostileArchive]:
    with HostileArchive(tmp_path).serving() as archive:
        archive.habits["*"] = "is silent"
        yield archive


@pytest.fixture
def impatient_house(tmp_path: Path, silent: HostileArchive) -> Iterator[House]:
    for name in BASES:
        base_of(tmp_path, silent.url, name)
    config = Config(images=msgspec.structs.replace(ImagesSection(), path=str(tmp_path / "images"), default="small"))
    with serving(tmp_path, config=config) as house:
        yield house
        silent.over.set()  # its threads are not the server's


def asking(place: Path, base: str) -> bytes:
    """An image of a job that asks for a package of a base image."""
    job = images.job_directory(place)
    (job / "construir.toml").write_text(f'base = "{base}"\n[dependencies]\npackages = ["tool"]\n')
    return images.of_directory(job, place.with_suffix(".img")).read_bytes()


def test_no_other_upload_waits_while_there_are_no_lists_yet(
    impatient_house: House, silent: HostileArchive, tmp_path: Path
) -> None:
    replies: list[tuple[str, float]] = []

    def send(name: str, content: bytes) -> None:
        with impatient_house.connect() as control:
            replies.append((control.log_in(name).store("/queue/x.img", content), time.monotonic()))

    uploads = {base: asking(tmp_path / base, base) for base in BASES}
    waiting = [
        threading.Thread(target=send, args=(name, upload))
        for name in ("alice", "bob")
        for upload in uploads.values()
        for _ in range(MANY)
    ]
    for thread in waiting:
        thread.start()
    while not silent.asked:
        time.sleep(0.05)
    with impatient_house.connect() as control:
        control.log_in("alice")
        assert control.store("/queue/y.img", PLAIN).startswith("226")
    admitted_s = time.monotonic()
    for thread in waiting:
        thread.join()
    assert {reply[:3] for reply, _ in replies} == {"452"}, replies
    assert all("package archive" in reply for reply, _ in replies), replies
    # Those that ask the archives themselves were waiting then.
    assert len([at_s for _, at_s in replies if at_s > admitted_s]) >= len(BASES)


def test_a_stop_does_not_wait_for_an_archive(tmp_path: Path) -> None:
    (tmp_path / "Packages").write_text("Package: tool\n" * 1000)
    config = f'[images]\npath = "{tmp_path}/images"\ndefault = "small"\n[spool]\nmin_free = "1MiB"\n'
    with HostileArchive(tmp_path).serving() as archive:
        archive.habits["*"] = "trickles"
        base_of(tmp_path, archive.url, "small")
        with Appliance(tmp_path, config).running() as appliance, appliance.session() as ftp:
            upload = io.BytesIO(asking(tmp_path / "job", "small"))
            sending = threading.Thread(target=lambda: suppressed(ftp.storbinary, "STOR /queue/x.img", upload))
            sending.start()
            while "Packages" not in archive.asked:
                time.sleep(0.05)
            assert appliance.stop() == 0
            sending.join()
    assert "can't be fetched" not in appliance.log.read_text()


def suppressed(command: Callable[..., object], *arguments: object) -> None:
    with suppress(OSError, EOFError, ftplib.Error):
        command(*arguments)
