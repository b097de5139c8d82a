"""A layer that is being made: everyone is told, and when the runner is killed meanwhile nothing is left of it."""

import io
import os
import signal
import time
from pathlib import Path

import msgspec

from tests.support.appliance import Appliance
from tests.system.test_dependencies import upload

INSTALLING = "its Debian packages are being installed"
_WAIT_S = 60


def anonymously(appliance: Appliance, path: str) -> dict[str, object]:
    content = io.BytesIO()
    with appliance.session("anonymous", "me@example.org") as ftp:
        ftp.retrbinary(f"RETR {path}", content.write)
    return msgspec.json.decode(content.getvalue(), type=dict[str, object])


def wait_until_installing(appliance: Appliance, job: str) -> None:
    deadline = time.monotonic() + _WAIT_S
    with appliance.session("anonymous", "me@example.org") as ftp:
        while INSTALLING not in (said := ftp.sendcmd(f"SITE STATUS {job}")):
            assert "done" not in said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)


def drafts(appliance: Appliance) -> list[Path]:
    return [path for path in (appliance.spool / "layers").glob(".draft-*") if path.is_dir()]


def layers(appliance: Appliance) -> list[str]:
    return [path.name for path in (appliance.spool / "layers").glob("[!.]*")]


def test_runner_killed_while_it_makes_a_layer_leaves_nothing_half_made(appliance: Appliance, tmp_path: Path) -> None:
    job = appliance.submit(upload(tmp_path / "upload", "hello", '[dependencies]\npackages = ["hello"]'))
    wait_until_installing(appliance, job)
    assert anonymously(appliance, f"/running/{job}/status.json")["why"] == INSTALLING
    running = anonymously(appliance, "/status.json")["running"]
    assert isinstance(running, list)
    assert [(slot["job"], slot["doing"]) for slot in running] == [(job, INSTALLING)]
    deadline = time.monotonic() + _WAIT_S
    while not any(draft.joinpath("console.log").exists() for draft in drafts(appliance)):
        assert time.monotonic() < deadline, "no machine installs the packages"
        time.sleep(0.02)
    (killed,) = drafts(appliance)
    os.kill(appliance.parts()["runner"], signal.SIGKILL)
    assert layers(appliance) == []
    result = appliance.wait(job)
    assert (result["status"], result["attempt"]) == ("success", 2)
    assert appliance.fetch(job, "output.log") == b"Hello, world!\n"
    assert layers(appliance) == [result["used"]["layers"][0]["name"]]
    assert not killed.exists()
    assert drafts(appliance) == []
