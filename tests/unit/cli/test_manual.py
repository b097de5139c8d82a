"""Promises of the manual pages and of completion: made of the help of every command, and right for man and shells."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from construir_ftp.cli.main import construir as group
from construir_ftp.jobs import request
from tests.support import images
from tests.support.appliance import construir
from tests.support.places import PROJECT
from tests.system.test_cli import commands

_BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("man")
    construir("man", "-o", place, check=True)
    return place


def read(page: Path) -> str:
    """A page as it is read: without what makes bold of it."""
    return re.sub(".\b", "", images.run("mandoc", "-Tascii", "-Owidth=200", page))


def test_there_is_a_page_for_every_command_and_it_has_all_options(pages: Path) -> None:
    names = {name.replace(" ", "-"): command for name, command in commands(group)}
    assert {path.name for path in (pages / "man1").iterdir()} == {f"{name}.1" for name in names}
    for name, command in names.items():
        text = read(pages / "man1" / f"{name}.1")
        options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
        for option in options:
            assert all(spelling in text for spelling in option.opts), name


def test_mandoc_finds_nothing_wrong_with_any_page(pages: Path) -> None:
    found = sorted(str(path) for path in pages.glob("man*/*"))
    assert images.run("mandoc", "-Tlint", "-Wwarning", *found) == ""


def test_the_page_of_construir_toml_has_all_keys(pages: Path) -> None:
    text = read(pages / "man5/construir.toml.5")
    for key in request.KEYS:
        assert f"{key.name} = {key.example}" in text


def test_the_page_of_the_configuration_has_every_key_with_its_default_and_its_meaning(pages: Path) -> None:
    text = " ".join(read(pages / "man5/construir-server.toml.5").split())
    tables = tomllib.loads((PROJECT / "etc/construir.toml").read_text())
    for table, keys in tables.items():
        assert f"THE TABLE [{table}]" in text
        for key in keys:
            assert f" {key} = " in text
    assert 'max_upload = "2GiB" Largest file a contributor may send; more is turned away (552).' in text
    assert "CONSTRUIR_CONFIG" in text


def test_an_installation_has_what_the_page_is_made_of(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(PROJECT, source, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "tests"))
    # What pip has setuptools do before it puts it all into a wheel.
    argv = [sys.executable, "-W", "ignore", "-c", "import setuptools; setuptools.setup()", "-q", "build_py"]
    subprocess.run([*argv, "--build-lib", tmp_path], cwd=source, capture_output=True, timeout=120, check=True)
    made = tmp_path / "construir_ftp/cli/construir-server.toml"
    assert made.read_bytes() == (PROJECT / "etc/construir.toml").read_bytes()


def test_the_exit_codes_of_every_page_are_those_of_the_page_on_results(pages: Path) -> None:
    table = (PROJECT / "docs/results.md").read_text().partition("## Exit codes")[2]
    rows = re.findall(r"^\| ([\d, ]+) \| (.+) \|$", table, re.MULTILINE)
    assert len(rows) > 10
    for name in ("construir-watch", "construir-check"):
        text = " ".join(read(pages / f"man1/{name}.1").split()).lower()
        for codes, meaning in rows:
            assert f" {codes} {meaning.replace('`', '')}.".lower() in text


def test_the_same_day_makes_the_same_pages(tmp_path: Path) -> None:
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1234567890"}
    construir("man", "-o", tmp_path, env=env, check=True)
    assert '.TH CONSTRUIR\\-PACK 1 2009-02-13 "Construir' in (tmp_path / "man1/construir-pack.1").read_text()
    wrong = construir("man", "-o", tmp_path / "man1/construir-pack.1")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


_TRIES = {
    "bash": "source {script}; COMP_WORDS=(construir ins); COMP_CWORD=1; _construir_completion construir;"
    " echo ${{COMPREPLY[@]}}",
    "fish": "source {script}; complete -C 'construir ins'",
    # zsh completes for a person only: here, that it takes the script, and what the command answers it.
    "zsh": "autoload -U compinit; compinit -u -D; source {script}; _CONSTRUIR_COMPLETE=zsh_complete"
    " COMP_WORDS='construir ins' COMP_CWORD=1 construir",
}


@pytest.mark.long
@pytest.mark.parametrize("shell", _TRIES)
def test_each_shell_completes_a_command_by_the_script_it_is_given(tmp_path: Path, shell: str) -> None:
    script = tmp_path / "script"
    script.write_text(construir("completion", shell, check=True).stdout)
    env = {**os.environ, "PATH": f"{_BIN}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    tried = subprocess.run(
        [shell, "-c", _TRIES[shell].format(script=script)],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "inspect" in tried.stdout, tried.stderr
    assert "error" not in tried.stderr
