"""The scripts in deploy/ say how they are called, and do nothing where they are called otherwise.

They are run as copies, and find no programs but those that look: what none of them may do, none could do to this host.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from construir_ftp.cli.setup import setup_command
from tests.support.places import PROJECT

_SCRIPTS = ("appliance", "campaign", "demo", "install", "package", "prepare", "test")
_LOOKING = ("cat", "dirname", "id", "sed")
_WRONG = (
    *(f"{name} --nonsense" for name in _SCRIPTS if name != "test"),
    *("appliance a b", "campaign 5", "campaign --minutes", "campaign --minutes soon", "campaign --seed"),
    *("demo hello", "install hello", "install --yes hello", "install a.deb b.deb --yes", "install --yes --contributor"),
    *("install", "install --contributor alice", "package a b", "package --pin b", "prepare tests", "prepare --all"),
)


@pytest.fixture
def looking(tmp_path: Path) -> Path:
    """A directory of the programs that change nothing, and no others."""
    place = tmp_path / "bin"
    place.mkdir()
    for name in _LOOKING:
        (place / name).symlink_to(shutil.which(name, path="/usr/bin:/bin") or name)
    return place


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of these scripts alone."""
    place = tmp_path / "project"
    shutil.copytree(PROJECT / "deploy", place / "deploy")
    return place


def called(project: Path, looking: Path, words: str) -> "subprocess.CompletedProcess[str]":
    """A script, with nobody at a terminal."""
    name, *options = words.split()
    env = {"PATH": str(looking), "TMPDIR": str(project), "HOME": str(project)}
    argv = [str(project / "deploy" / name), *options]
    return subprocess.run(
        argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )


def everything(place: Path) -> list[Path]:
    return sorted(place.rglob("*"))


def test_these_are_all_scripts() -> None:
    there = {path.name for path in (PROJECT / "deploy").iterdir() if path.is_file() and path.stat().st_mode & 0o100}
    assert there == set(_SCRIPTS)


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("name", _SCRIPTS)
def test_a_script_that_is_asked_says_how_it_is_called_and_does_nothing(
    project: Path, looking: Path, name: str, option: str
) -> None:
    before = everything(project)
    said = called(project, looking, f"{name} {option}")
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith((f"{name} [", f"{name}: "))
    assert "set -eu" not in said.stdout
    assert everything(project) == before


@pytest.mark.parametrize("words", _WRONG)
def test_what_a_script_does_not_know_is_refused_before_it_does_anything(
    project: Path, looking: Path, words: str
) -> None:
    before, name = everything(project), words.partition(" ")[0]
    said = called(project, looking, words)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith(f"{name}: ") and said.stderr.endswith(f"; see: deploy/{name} --help\n")
    assert said.stderr.count("\n") == 1
    assert everything(project) == before


def test_install_knows_the_options_of_setup_which_gets_them(project: Path, looking: Path) -> None:
    said = called(project, looking, "install --help").stdout
    for option in (option for parameter in setup_command.params for option in parameter.opts):
        assert option in said
        value = "" if option == "--yes" else "=x"
        # All are known: what is complained of is the package, which comes after them.
        missing = called(project, looking, f"install {option}{value} --yes missing.deb")
        assert (missing.returncode, missing.stderr) == (1, "install: failed: missing.deb is not there\n")


@pytest.mark.parametrize("words", ["test --nonsense", "test --quick --nonsense", "test -k"])
def test_options_that_pytest_does_not_know_are_refused_before_anything_is_installed(looking: Path, words: str) -> None:
    said = called(PROJECT, looking, words)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith("test: pytest: ") and said.stderr.count("\n") == 1


def test_help_of_test_says_that_the_rest_is_for_pytest(project: Path, looking: Path) -> None:
    assert "is passed on to pytest" in called(project, looking, "test --help").stdout
