"""Promise: an appliance that is killed, starved and cut from its power loses no job, and runs none twice."""

import subprocess
import sys

import pytest

from tests.support.places import PROJECT

_MOST_S = 900


@pytest.mark.slow("an appliance is harmed for a minute, and comes to rest")
@pytest.mark.root("only root can mount the disk whose power is cut")
def test_a_short_campaign_breaks_no_promise() -> None:
    argv = [sys.executable, "-m", "tests.campaign", "--minutes=1", "--seed=20"]
    done = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, timeout=_MOST_S, check=False)
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout
    assert "broken promises: 0" in done.stdout
