"""Memory: the least is measured, told at the door, and a machine that has too little is its job's failure."""

from pathlib import Path

import msgspec
import pytest

from construir_ftp.config import Config
from construir_ftp.errors import RefusedError
from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs import request
from construir_ftp.jobs.spool import Spool
from construir_ftp.layers.resolver import Offer
from construir_ftp.machine import accelerator
from tests.support.appliance import CONFIG, Appliance
from tests.support.machines import SMALL
from tests.system.test_dependencies import upload

STEP = 32 * 2**20


def test_machine_comes_up_with_the_least_memory_and_not_with_less(base: BaseImage, images: Path) -> None:
    least = base.manifest.least_memory
    assert 2 * STEP <= least < 512 * 2**20
    chosen = accelerator.choose(SMALL, images, base).accelerator
    assert accelerator.probe(SMALL, base, chosen, 60, least) == ""
    assert accelerator.probe(SMALL, base, chosen, 20, least - STEP) != ""


@pytest.mark.parametrize("asked", ["1MiB", "64MiB"])
def test_less_than_that_is_refused_at_the_door(base: BaseImage, tmp_path: Path, asked: str) -> None:
    assert base.manifest.least_memory
    offer = Offer.of(Spool.prepare(tmp_path / "spool"), Config())
    with pytest.raises(RefusedError, match=f"memory: a machine of {base.name} needs .* MiB at least"):
        offer.check(request.read(f'memory = "{asked}"'), 2**20)


def test_machine_that_does_not_come_up_for_want_of_memory_is_its_jobs_failure(base: BaseImage, tmp_path: Path) -> None:
    """Where the least is not known, as of an image that was built before it was measured."""
    own = tmp_path / "images" / base.name
    own.mkdir(parents=True)
    for part in baseimage.PARTS:
        (own / part).symlink_to(base.path / part)
    manifest = msgspec.structs.replace(base.manifest, least_memory=0, disk=None)
    (own / baseimage.MANIFEST).write_bytes(msgspec.json.encode(manifest))
    config = (
        CONFIG.replace('boot_timeout = "60s"', 'boot_timeout = "15s"') + f'[images]\npath = "{tmp_path / "images"}"\n'
    )
    with Appliance(tmp_path, config).running() as appliance:
        small = appliance.submit(upload(tmp_path / "small", "true", 'memory = "32MiB"'))
        result = appliance.wait(small)
        assert (result["status"], result["attempt"]) == ("failed", 1)
        assert "32 MiB of memory" in result["reason"]
        assert appliance.wait(appliance.submit(upload(tmp_path / "plain", "true", "")))["status"] == "success"
        assert "next try in" not in appliance.log.read_text()
