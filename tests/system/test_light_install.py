"""What `pip install .` gives a contributor, in a virtual environment of its own: tried against an appliance."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.appliance import NAME, PASSWORD, Appliance
from tests.support.places import JOBS, PROJECT

_HEAVY = ("argon2", "magic", "pyftpdlib", "schedule", "sh")
# Where only mke2fs and what it comes with are found: no QEMU, no bubblewrap, no setpriv, no zstd.
_PROGRAMS = ("mke2fs", "debugfs", "git")


@pytest.fixture
def light(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, dict[str, str]]:
    """The command in a virtual environment of its own, and an environment with few programs."""
    if not request.config.getoption("--all"):
        pytest.skip("pip takes minutes: only with --all")
    venv, programs = tmp_path / "venv", tmp_path / "bin"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    # A copy: what setuptools builds in the directory is no part of the project.
    source = tmp_path / "source"
    shutil.copytree(PROJECT, source, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info"))
    subprocess.run([venv / "bin/pip", "install", "--quiet", source], check=True, timeout=1800)
    programs.mkdir()
    for name in _PROGRAMS:
        (programs / name).symlink_to(next(place for place in Path("/").glob(f"usr/*bin/{name}")))
    home = tmp_path / "home"
    home.mkdir()
    (home / ".netrc").write_text(f'machine 127.0.0.1 login {NAME} password "{PASSWORD}"\n')
    (home / ".netrc").chmod(0o600)
    return venv / "bin/construir", {"PATH": str(programs), "HOME": str(home)}


def test_a_light_install_packs_sends_follows_fetches_and_unpacks(
    light: tuple[Path, dict[str, str]], appliance: Appliance, tmp_path: Path
) -> None:
    command, env = light

    def construir(*words: str | Path) -> "subprocess.CompletedProcess[str]":
        argv = [str(command), *map(str, words)]
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)

    python = str(command.with_name("python"))
    for library in _HEAVY:
        found = subprocess.run([python, "-c", f"import {library}"], capture_output=True, check=False)
        assert found.returncode == 1, library
    server = f"ftp://{NAME}@127.0.0.1:{appliance.port}"
    for words in (
        ("pack", JOBS / "hello", "-o", tmp_path / "hello.img.zst"),
        ("inspect", tmp_path / "hello.img.zst"),
        ("submit", tmp_path / "hello.img.zst", server, "--tls", "never", "--wait", "--fetch", tmp_path / "result"),
        ("unpack", tmp_path / "result/hello.img.zst", tmp_path / "left"),
        ("completion", "bash"),
        ("man", "-o", tmp_path / "man"),
    ):
        said = construir(*words)
        assert said.returncode == 0, (words, said.stdout, said.stderr)
        assert ("not verified: that takes openssl" in said.stderr) == (words[0] == "submit"), said.stderr
    assert (tmp_path / "left/made-by-run.txt").exists()
    lacking = construir("run", JOBS / "hello")
    assert lacking.returncode == 69
    assert lacking.stderr.endswith("elsewhere: pip install '.[appliance]'\n")
    assert lacking.stderr.count("\n") == 1
