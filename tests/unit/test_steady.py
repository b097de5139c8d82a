"""A test of a short time is run again where the host stood still, and only there."""

import subprocess
import sys
from pathlib import Path

import pytest

from construir_ftp import process
from tests.support.places import PROJECT

# Each try notes that it was made. A process that is stopped can't tell that from a host that stands still.
TRIED = """
import os, subprocess
from pathlib import Path
import pytest

@pytest.mark.steady(0.5)
def test_tried(tmp_path):
    with Path("tries").open("a") as tries:
        tries.write("x")
    {done}

def stall():
    with subprocess.Popen(["sh", "-c", f"kill -STOP {{os.getpid()}}; sleep 1; kill -CONT {{os.getpid()}}"]):
        pass
"""


@pytest.mark.long
@pytest.mark.steady(0.3)
@pytest.mark.parametrize(
    ("done", "tries", "passes"),
    [
        ("assert True", 1, True),
        ("assert False", 1, False),
        ("stall(); assert True", 1, True),
        ("len(Path('tries').read_text()) < 2 and stall(); assert len(Path('tries').read_text()) > 1", 2, True),
        ("len(Path('tries').read_text()) < 2 and stall(); assert False", 2, False),
    ],
    ids=["passes", "fails", "passes all the same", "passes the next time", "fails the next time"],
)
def test_only_a_failure_on_a_host_that_stood_still_is_tried_again(
    tmp_path: Path, done: str, tries: int, passes: bool
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = steady(seconds): x\n")
    (tmp_path / "test_it.py").write_text(TRIED.format(done=done))
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.support.steady", "test_it.py"]
    env = process.environment(PYTHONPATH=str(PROJECT))
    said = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False).stdout
    assert len((tmp_path / "tries").read_text()) == tries, said
    assert passes == ("1 passed" in said), said
