"""Cgroups version 2: the tests of cgroups again, in a machine of our own, whose kernel has no other kind.

The worker gets Python and bubblewrap by a layer, which takes minutes under emulation: only with --all.
"""

import shutil
import socket
import sys
from pathlib import Path

import msgspec
import pytest

from construir_ftp.config import Config
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.runner import local
from tests.support.places import PROJECT

_WORKERS_PYTHON = {"bookworm": (3, 11), "trixie": (3, 13)}
_LIBRARIES = ("msgspec", "sh", "py.py", "pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments")
_ASKS = """
memory = "2GiB"
[dependencies]
packages = ["python3", "bubblewrap"]
"""
# As systemd does it for a unit with Delegate=yes.
_RUN = b"""#!/bin/sh -e
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo "+memory +pids +cpu" >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/construir.service
echo $$ >/sys/fs/cgroup/construir.service/cgroup.procs
python3 -c 'import os; os.setxattr("/sys/fs/cgroup/construir.service", "user.delegate", b"1")'
export PYTHONPATH=/job PYTHONDONTWRITEBYTECODE=1
python3 -c '
from construir_ftp import jail
from construir_ftp.jail import check
for part in check.in_force(jail.host()): print(part.name, part.in_force, part.why, sep=": ")'
exec python3 -m pytest -c /dev/null --rootdir=/job --noconftest -p no:cacheprovider -rs -q tests/test_cgroup.py
"""


@pytest.mark.slow("installing python3 takes minutes under emulation")
def test_all_of_it_holds_under_version_2(request: pytest.FixtureRequest, base: BaseImage, tmp_path: Path) -> None:
    if _WORKERS_PYTHON.get(base.manifest.suite) != sys.version_info[:2]:
        pytest.skip("the worker's Python is of another version than this one, whose libraries it would be given")
    exit_code, said = run_in_a_machine(tmp_path)
    print(said)
    assert exit_code == 0, said
    assert [said.count(f" limit for all of it: {word}: ") for word in (True, False)] == [3, 0]
    assert said.count(": True: cgroup version 2\n") == 3
    assert " passed, 1 skipped" in said  # what is only for ordinary users


def run_in_a_machine(place: Path) -> tuple[int | None, str]:
    """The exit status of the tests, and all that they said."""
    job = place / "cgroups"
    lay_out(job)
    usual = Config()
    spool = msgspec.structs.replace(usual.spool, path=str(place / "spool"))
    config = msgspec.structs.replace(usual, spool=spool)
    stop, other_end = socket.socketpair()
    with stop, other_end:
        result, described = local.run(job, place / "result", config, stop)
    return described.exit_code, f"{described.reason}\n{(result / 'output.log').read_text()}"


def lay_out(job: Path) -> None:
    """The package, its tests, and the libraries that both import, beside a run.sh."""
    job.mkdir()
    for name in ("construir_ftp", "tests"):
        shutil.copytree(PROJECT / name, job / name, ignore=shutil.ignore_patterns("__pycache__"))
    libraries = Path(msgspec.__file__).parent.parent
    for name in _LIBRARIES:
        copy = shutil.copytree if (libraries / name).is_dir() else shutil.copy
        copy(libraries / name, job / name)
    (job / "construir.toml").write_text(_ASKS)
    (job / "run.sh").write_bytes(_RUN)
    (job / "run.sh").chmod(0o755)
