"""Packages that people build with, out of Debian's archive: each set is installed into a layer, and a job uses it.

tests/packages/ has the jobs; docs/dependencies.md has a table of them. With --user-mode they run in user-mode machines,
which are quicker where there is no KVM.
"""

import shutil
from pathlib import Path

import pytest

from tests.support import machines
from tests.support.appliance import construir
from tests.support.places import PROJECT

CONFIG = """
[machine]
memory = "1GiB"
timeout = "20min"
boot_timeout = "10min"
[layers]
max_installed = "4GiB"
timeout = "55min"
"""
INSTALL_AND_RUN_S = 5000
PLACE = PROJECT / "tests" / "packages"
ASKS = "# packages: "


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A configuration, and a spool, so that a set can use the layer of another."""
    made = tmp_path_factory.mktemp("popular")
    kind = "uml" if request.config.getoption("--user-mode") else ""
    (made / "construir.toml").write_text(machines.config(kind, CONFIG))
    return made


@pytest.mark.slow("each installs packages of up to a gigabyte under emulation")
@pytest.mark.parametrize("name", sorted(path.stem for path in PLACE.glob("*.sh")))
def test_packages_that_people_build_with_work_in_a_layer(name: str, place: Path, tmp_path: Path) -> None:
    script = PLACE / f"{name}.sh"
    (packages,) = [line.removeprefix(ASKS) for line in script.read_text().splitlines() if line.startswith(ASKS)]
    job = tmp_path / "job"
    job.mkdir()
    shutil.copy(script, job / "run.sh")
    (job / "construir.toml").write_text(f'space = "256MiB"\n[dependencies]\npackages = {packages.split()}\n')
    where = (f"--config={place / 'construir.toml'}", f"--spool={place / 'spool'}")
    ended = construir("run", job, "-o", tmp_path / "result", *where, timeout_s=INSTALL_AND_RUN_S)
    assert ended.returncode == 0, ended.stdout + ended.stderr
