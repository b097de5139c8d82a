"""What one job builds another one links against: the two jobs of docs/dependencies.md, copied, sent by FTP, and run."""

import subprocess
from pathlib import Path

import pytest

from tests.support.appliance import Appliance, construir
from tests.support.places import PROJECT

_PAGE = PROJECT / "docs" / "dependencies.md"
# It has both packages that the jobs ask for, so that no layer has to be made; see deploy/test.
_WITH_GCC = 'base = "bookworm-amd64-gcc"\n'


def lay_out(desk: Path) -> None:
    """Run the page's command lines that make the two jobs."""
    text = _PAGE.read_text()
    begin = text.index("mkdir library program\n")
    desk.mkdir()
    subprocess.run(["sh", "-e"], cwd=desk, input=text[begin : text.index("```", begin)], text=True, check=True)


def packed(job: Path, asks: str) -> Path:
    (job / "construir.toml").write_text(asks)
    construir("pack", job.name, cwd=job.parent, check=True)
    return job.with_name(f"{job.name}.img.zst")


@pytest.fixture(params=["base image with gcc", "layer of gcc"])
def base_key(request: pytest.FixtureRequest) -> str:
    """What is added to the jobs' construir.toml."""
    if request.param == "base image with gcc":
        return _WITH_GCC
    if not request.config.getoption("--all"):
        pytest.skip("installing gcc takes minutes under emulation: only with --all")
    return ""


def test_program_links_against_the_library_that_an_earlier_job_left(
    usual_appliance: Appliance, tmp_path: Path, base_key: str
) -> None:
    desk = tmp_path / "desk"
    lay_out(desk)
    library_asks, program_asks = ((desk / job / "construir.toml").read_text() for job in ("library", "program"))
    library = usual_appliance.submit(packed(desk / "library", base_key + library_asks))
    program = usual_appliance.submit(packed(desk / "program", base_key + program_asks.replace("ID", library)))
    result = usual_appliance.wait(program)
    said = usual_appliance.fetch(program, "output.log").decode()
    assert (result["status"], result["used"]["results"], said) == ("success", [library], "hello from a library\n")
