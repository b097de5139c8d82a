"""The site of a whole appliance: written by a part of its own, which can be killed like any other."""

import os
import signal
from pathlib import Path

from construir_ftp.image.baseimage import BaseImage
from tests.support.appliance import Appliance, construir
from tests.support.ftpclient import wait_until


def test_a_part_that_was_killed_is_in_the_metrics_and_the_pages_go_on(tmp_path: Path, base: BaseImage) -> None:
    with Appliance(tmp_path).running() as appliance:
        metrics = appliance.spool / "site/metrics.prom"
        wait_until(lambda: 'construir_part_restarts_total{part="site"} 0.0' in _text(metrics), "it is written")
        os.kill(appliance.parts()["site"], signal.SIGKILL)
        appliance.wait_until_logged("pages in ", times=2)
        wait_until(lambda: 'construir_part_restarts_total{part="site"} 1.0' in _text(metrics), "it is written")
        page = (appliance.spool / "site/index.html").read_text()
    assert f"{base.name}, {len(base.manifest.packages)} packages" in page, "health as check sees it"
    assert str(tmp_path) not in page
    assert str(base.path.parent) not in page


def test_the_web_server_says_what_is_wrong_with_its_address(tmp_path: Path) -> None:
    config = tmp_path / "construir.toml"
    config.write_text(f'[site]\npath = "{tmp_path}"\naddress = "192.0.2.1"\n')
    said = construir("serve", "web", f"--config={config}")
    assert said.returncode == 78
    assert "site.address 192.0.2.1, site.port 8021: Cannot assign requested address; choose others" in said.stderr
    assert len(said.stderr.splitlines()) == 1


def test_the_web_server_says_where_pages_come_from_where_there_are_none(tmp_path: Path) -> None:
    said = construir("serve", "web", f"--spool={tmp_path}")
    assert said.returncode == 78
    assert said.stderr == f"construir: there are no pages at {tmp_path}/site; they are written by: construir serve\n"


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
