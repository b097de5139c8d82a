"""deploy/demo as README has a newcomer run it: everything once, on this machine."""

import subprocess

from tests.support.places import PROJECT

_DEMO = PROJECT / "deploy/demo"


def test_demo_sends_a_job_and_shows_its_result() -> None:
    shown = subprocess.run([_DEMO], capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "hello from Linux" in shown.stdout
    assert shown.stdout.endswith("demo: done\n")
