"""`construir setup`: one command makes an appliance of a computer, asks nothing, and changes nothing that is there."""

import re
import subprocess
from pathlib import Path

import pytest

from construir_ftp.image.baseimage import BaseImage
from tests.support.appliance import CONFIG, Appliance, construir

COMMENTED = """# what the operator wrote

[machine]
warm = false

[ftp]
# who may connect
address = "127.0.0.1"  # nobody else
users = "{place}/users.toml"

[tls]
"""


def setup(config: Path, spool: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return construir("setup", f"--config={config}", f"--spool={spool}", *options)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "construir.toml"
    path.write_text(COMMENTED.format(place=tmp_path))
    path.chmod(0o640)
    return path


def test_what_it_prints_is_all_that_a_contributor_needs(config: Path, tmp_path: Path, base: BaseImage) -> None:
    done = setup(config, tmp_path / "spool", "--yes", "--contributor=carol")
    assert "ok       program: all " in done.stdout, done.stdout + done.stderr
    assert f"base image: {base.name}" in done.stdout
    (name,) = re.findall(r"^Contributor: (.+)$", done.stdout, re.MULTILINE)
    (password,) = re.findall(r"^Password:    (\S+) ", done.stdout, re.MULTILINE)
    (address,) = re.findall(r"^Address:     (ftp://.*/)$", done.stdout, re.MULTILINE)
    assert name == "carol"
    assert f"construir submit DIRECTORY --server {address[:6]}{name}@{address[6:-1]} --wait" in done.stdout
    settings = CONFIG + f'\n[ftp]\nusers = "{tmp_path}/users.toml"\n'
    with Appliance(tmp_path, settings).running() as appliance, appliance.session("carol", password) as ftp:
        assert ftp.nlst("/") != []


def test_a_second_run_changes_nothing_and_tells_no_password(config: Path, tmp_path: Path) -> None:
    before = config.read_text()
    first = setup(config, tmp_path / "spool", "--yes")
    assert "the doors are open" in first.stdout, first.stderr
    assert re.sub(r'address = "(::|0\.0\.0\.0)"', 'address = "127.0.0.1"', config.read_text()) == before
    assert config.stat().st_mode & 0o777 == 0o640
    files = {path: path.read_bytes() for path in (config, tmp_path / "users.toml")}
    again = setup(config, tmp_path / "spool", "--yes")
    assert {path: path.read_bytes() for path in files} == files
    assert "contributors are there: builder" in again.stdout
    assert "Password" not in again.stdout


def test_without_a_terminal_and_without_yes_it_says_what_to_do(config: Path, tmp_path: Path) -> None:
    done = setup(config, tmp_path / "spool")
    assert (done.returncode, done.stderr) == (2, "construir: there is no terminal to ask on; use --yes\n")
    assert not (tmp_path / "spool").exists()
