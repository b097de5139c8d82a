"""While the key that results are signed with can't be used nothing is lost, nothing is run in vain, and the reason is
told.
"""

from pathlib import Path

import pytest

from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs.spool import Spool
from construir_ftp.trust import key_place, verify
from tests.support import images, machines, signed
from tests.support.appliance import CONFIG, Appliance, construir

_SLEEPS = b"#!/bin/sh\necho begun\nsleep 12\n"
_WHY = "results can't be signed"


@pytest.fixture
def sleeps(tmp_path: Path) -> Path:
    """A job that is under way for a while."""
    job = images.job_directory(tmp_path / "sleeps", _SLEEPS)
    construir("pack", job, "-o", tmp_path / "sleeps.img.zst", "--space", "1MiB", check=True)
    return tmp_path / "sleeps.img.zst"


def test_jobs_wait_for_a_key_that_can_not_be_used(tmp_path: Path, base: BaseImage, sleeps: Path, hello: Path) -> None:
    with Appliance(tmp_path, machines.light(CONFIG.replace("slots = 2", "slots = 1"))).running() as there:
        key, kept = there.spool / "trust/construir.key", tmp_path / "kept.key"
        running = there.submit(sleeps)
        there.wait_until_running(running)
        runner = there.parts()["runner"]
        key.rename(kept)
        cancelled, waiting = there.submit(hello), there.submit(hello)
        Spool(there.spool).cancel(cancelled)
        there.wait_until_logged(f"job {cancelled}: cancelled, and tried again: its result can't be written: {_WHY}")
        there.wait_until_logged(f"job {running}: {_WHY}: {key}: No such file or directory; trying again in 2 s")
        with there.session() as ftp:
            assert f"; {_WHY}; see /running/" in ftp.sendcmd(f"SITE STATUS {running}")
            assert ftp.sendcmd(f"SITE STATUS {waiting}").endswith(f"no job is taken at the moment: {_WHY}")
        assert there.parts()["runner"] == runner
        kept.rename(key)
        ends = [there.wait(job) for job in (running, cancelled, waiting)]
        assert [(end["status"], end["attempt"]) for end in ends] == [("success", 1), ("cancelled", 0), ("success", 1)]
        for job in (running, cancelled, waiting):
            verify.check(there.spool / "done" / job, key_place.known(there.spool))

        content = key.read_bytes()
        key.write_bytes(b"")
        following = there.submit(hello)
        there.wait_until_logged(f"no job can be run: {_WHY}: {key} has changed; put the key back, or start again")
        assert there.states()["queue"] == [following]
        assert f"job {following} of" not in there.log.read_text()
        key.write_bytes(content)
        assert there.wait(following)["attempt"] == 1
        assert there.parts()["runner"] == runner


def test_a_lost_key_is_told_in_a_line_and_not_replaced(tmp_path: Path, base: BaseImage) -> None:
    there = Appliance(tmp_path, machines.light(CONFIG))
    key = signed.seal(there.spool).key.path
    key.unlink()
    options = (f"--config={there.config}", f"--spool={there.spool}")
    refused = construir("serve", "--port=0", *options)
    assert refused.returncode != 0
    why = f"{key} is missing, the key that results are signed with: put it back from the backup"
    assert (
        f"construir: {why}; if a new key is wanted, remove {key.with_name('construir.pub')} as well" in refused.stderr
    )
    assert "Traceback" not in refused.stderr
    assert not key.exists()
    assert why in construir("check", *options).stdout
