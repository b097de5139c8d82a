"""A base image gives way to a newer one under a running appliance; and not to one in which no job succeeds."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from construir_ftp.config import Config
from construir_ftp.errors import ConstruirError
from construir_ftp.image import baseimage, gc, versions
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.machine.template import Template
from construir_ftp.machine.vm import Machine
from construir_ftp.pack import pack
from construir_ftp.runner import local
from tests.support import machines
from tests.support.appliance import CONFIG, Appliance, paused_runner
from tests.support.baseimages import publish_copy

SLOW = "#!/bin/sh\necho begun\nsleep 3\necho ended\n"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Base images of our own."""
    return tmp_path / "images"


def append(draft: Path) -> None:
    """Make an initramfs another one that does the same."""
    with (draft / baseimage.INITRD).open("ab") as file:
        file.write(bytes(512))


def test_self_test_passes_in_a_sound_image(base: BaseImage) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        local.self_test(base, Config(), ours)


def test_image_that_fails_its_self_test_never_goes_live(own: Path, base: BaseImage) -> None:
    """Its init is not what it should be: the root disk's own, which a machine moves to, is no program."""
    live = publish_copy(own, base)
    ours, theirs = socket.socketpair()

    def spoil(draft: Path) -> None:
        (draft / baseimage.INITRD).write_bytes(bytes(2**20))

    with ours, theirs, pytest.raises(ConstruirError, match=r"self-test|did not come up|ended by itself"):
        publish_copy(own, base, spoil, lambda candidate: local.self_test(candidate, Config(), ours))
    assert baseimage.find(own, base.name).path == live.path
    assert len(versions.every(own, base.name)) == 1


def test_machine_and_template_keep_the_version_they_run_on(own: Path, base: BaseImage) -> None:
    old = publish_copy(own, base)
    shape = machines.shape(own, old)
    with Machine.start(shape) as machine:
        publish_copy(own, base, append)
        assert gc.collect(own, {base.name}) == []
        machine.wait_until_ready(machines.LONG_S)
    template = Template.build(shape, machines.LONG_S)
    try:
        assert gc.collect(own, {base.name}) == []
        with template.clone() as clone:
            assert clone.ending.claims.ready
    finally:
        template.close()
    assert [gone.path for gone in gc.collect(own, {base.name})] == [old.path]


@pytest.fixture
def serving(tmp_path: Path, own: Path, base: BaseImage) -> Iterator[Appliance]:
    """An appliance with base images of its own."""
    publish_copy(own, base)
    appliance = Appliance(tmp_path, f'{CONFIG}\n[images]\npath = "{own}"\n')
    appliance.start()
    yield appliance
    appliance.stop()


def packed(place: Path, name: str, run_sh: str) -> Path:
    job = place / name
    job.mkdir()
    (job / "run.sh").write_text(run_sh)
    (job / "run.sh").chmod(0o755)
    pack.pack(job, place / f"{name}.img.zst", 2**20)
    return place / f"{name}.img.zst"


def test_running_job_keeps_its_image_and_the_next_one_gets_the_new(
    tmp_path: Path, own: Path, base: BaseImage, serving: Appliance
) -> None:
    first = serving.submit(packed(tmp_path, "slow", SLOW))
    deadline = time.monotonic() + 60
    while not (serving.place(first) / "output.log").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with paused_runner(serving):  # it has the job's image until it has seen the job end
        old = baseimage.find(own, base.name)
        new = publish_copy(own, base, append)
        assert gc.collect(own, {base.name}) == []
    second = serving.submit(packed(tmp_path, "quick", "#!/bin/sh\necho quick\n"))
    results = [serving.wait(job) for job in (first, second)]
    assert [result["status"] for result in results] == ["success", "success"]
    assert [result["base_image"]["digest"] for result in results] == [old.manifest.digest(), new.manifest.digest()]
