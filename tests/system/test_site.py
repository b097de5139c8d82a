"""The site of a whole appliance: written by a part of its own, which can be killed like any other."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from construir_ftp.image.baseimage import BaseImage
from construir_ftp.site.tree import Tree
from tests.support.appliance import Appliance, construir
from tests.support.ftpclient import LONG_S, wait_until


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
    assert said.returncode == 1, "it may be this computer's later"
    assert "site.address 192.0.2.1, site.port 8021: Cannot assign requested address; choose others" in said.stderr
    assert len(said.stderr.splitlines()) == 1


def test_the_web_server_says_where_pages_come_from_where_there_are_none(tmp_path: Path) -> None:
    said = construir("serve", "web", f"--spool={tmp_path}")
    assert said.returncode == 66
    waits, ends = said.stderr.splitlines()
    assert waits.endswith(f"no pages at {tmp_path}/site yet; waiting 10 s for construir serve to write them")
    assert ends == f"construir: there are no pages at {tmp_path}/site; they are written by: construir serve"


def test_the_web_server_waits_for_the_pages_of_an_appliance_that_is_being_started(tmp_path: Path) -> None:
    with _web(tmp_path) as (web, log):
        wait_until(lambda: "no pages at" in _text(log), "it waits")
        Tree(tmp_path / "site").prepare(tmp_path / "done")  # as the part that writes them begins
        wait_until(lambda: "pages on http://127.0.0.1:" in _text(log), "it serves")
        wait_until(lambda: "there are none in" in _text(log), "it says who writes them")
        web.send_signal(signal.SIGTERM)
        assert web.wait(LONG_S) == 0


def test_the_web_server_can_be_stopped_while_it_waits_for_pages(tmp_path: Path) -> None:
    with _web(tmp_path) as (web, log):
        wait_until(lambda: "no pages at" in _text(log), "it waits")
        web.send_signal(signal.SIGTERM)
        assert web.wait(LONG_S) == 0
        assert "there are no pages" not in _text(log)


@contextmanager
def _web(spool: Path) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    """Our web server of a spool, on any free port, and the file that has its log."""
    log = spool / "web.log"
    argv = [sys.executable, "-m", "construir_ftp", "serve", "web", "--port=0", f"--spool={spool}"]
    with log.open("wb") as file, subprocess.Popen(argv, stdout=file, stderr=file) as web:
        try:
            yield web, log
        finally:
            web.kill()


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
