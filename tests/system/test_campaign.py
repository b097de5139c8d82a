"""Promise: an appliance that is killed, starved, deceived and cut from its power loses no job, and runs none twice.

Six acts by ten contributors take a minute on a quiet host. Two minutes with thirty of them would take five, until all
jobs have ended: a third of what the suite may. The seed is one whose first six acts are of six kinds: a part is killed,
the clock jumps, a call fails, the base image is damaged, the power is cut, and a part is killed at a call.
"""

import random
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from construir_ftp.errors import ConstruirError
from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage
from tests.campaign import clock
from tests.campaign.images import Images
from tests.support import baseimages
from tests.support.places import PROJECT

# What is harmed by then waits for a busy host, and is not given up.
_MOST_S = 900
_WORDS = ("-m", "tests.campaign", "--acts=6", "--minutes=5", "--senders=10", "--seed=4380")


@pytest.mark.long
@pytest.mark.root("only root can mount the disk whose power is cut")
def test_a_short_campaign_breaks_no_promise(base: BaseImage) -> None:
    assert base.root.exists()
    argv = [sys.executable, *_WORDS]
    done = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, timeout=_MOST_S, check=False)
    assert done.returncode == 0, f"to repeat it: {shlex.join(argv)}\n{done.stderr[-4000:]}{done.stdout}"
    assert "broken promises: 0" in done.stdout
    assert "set clock 1" in done.stdout, "all six have been done"


def test_a_damaged_base_image_is_damaged_and_a_mended_one_what_it_was(tmp_path: Path) -> None:
    original = baseimages.publish(tmp_path / "host", "small", {"bin/sh": "sh"})
    copy = Images(tmp_path, tmp_path / "host" / "small")
    ways = set()
    for seed in range(40):
        ways.add(copy.damage(random.Random(seed)))
        with pytest.raises(ConstruirError):
            baseimage.verify(baseimage.find(copy.path, "small"))
        copy.mend()
        baseimage.verify(baseimage.find(copy.path, "small"))
    assert len(ways) == 16, "each part in each way"
    baseimage.verify(original)


def test_a_clock_that_jumps_is_the_wall_clock_alone_and_jumps_while_a_program_runs(tmp_path: Path) -> None:
    jumping = clock.Clock(tmp_path, (-400,))
    tells = "import sys, time\nfor _ in sys.stdin: print(time.time(), time.monotonic(), flush=True)"
    argv = [*jumping.within(), sys.executable, "-c", tells]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as told:
        assert told.stdin is not None
        assert told.stdout is not None
        off = []
        for jumps in (False, True):
            if jumps:
                jumping.jump(random.Random(1))
            told.stdin.write("\n")
            wall_s, monotonic_s = map(float, told.stdout.readline().split())
            off.append((round((wall_s - time.time()) / 100), round((monotonic_s - time.monotonic()) / 100)))
        told.stdin.close()
    assert off == [(0, 0), (-4, 0)]
