"""The list of commands, where all libraries are installed, and where those of the extra `appliance` are not."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import click
import pytest

from construir_ftp.cli.main import _SUMMARIES, construir
from tests.support.places import PROJECT
from tests.system.test_cli import commands

# The modules of the extra `appliance`, and what stands for them in site-packages.
_LACKING = ("pyftpdlib", "magic", "sh.py", "schedule", "argon2", "elftools")


@pytest.fixture
def light(tmp_path: Path) -> dict[str, str]:
    """An environment whose Python finds the libraries of a contributor's install only."""
    place = tmp_path / "libraries"
    place.mkdir()
    for library in Path(sysconfig.get_path("purelib")).iterdir():
        if library.name not in _LACKING and library.suffix != ".pth":
            (place / library.name).symlink_to(library)
    (place / "construir_ftp").unlink(missing_ok=True)
    (place / "construir_ftp").symlink_to(PROJECT / "construir_ftp")
    return {**os.environ, "PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "300"}


def typed(light: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    # The interpreter itself, without any site-packages (-S): those have the libraries.
    python = os.path.realpath(sys.executable)
    argv = [python, "-S", "-m", "construir_ftp", *words]
    return subprocess.run(argv, env=light, cwd="/", capture_output=True, text=True, timeout=60, check=False)


def test_summaries_of_commands_that_may_be_missing_are_the_commands_own() -> None:
    context = click.Context(construir)
    found = {name: construir.get_command(context, name) for name in _SUMMARIES}
    own = {name: command.get_short_help_str(200).rstrip(".") for name, command in found.items() if command}
    assert own == _SUMMARIES


def test_help_without_the_appliances_libraries_still_says_what_each_command_does(light: dict[str, str]) -> None:
    said = typed(light, "--help")
    assert said.returncode == 0, said.stderr
    told = " ".join(said.stdout.split())
    needs = "pip install '.[appliance]'"
    for name in ("run", "serve", "user"):
        assert f"{name} {_SUMMARIES[name]} (needs: {needs})" in told
    assert "submit Send SOURCE" in told
    lacking = typed(light, "run", "greet")
    assert (lacking.returncode, lacking.stderr.count("\n")) == (69, 1)
    assert lacking.stderr.endswith(f"elsewhere: {needs}\n")


def test_a_mistyped_command_is_told_which_was_meant() -> None:
    mistyped = {"statsu": "status", "serv": "serve", "puase": "pause", "image verif": "verify", "user ad": "add"}
    for words, meant in ((words.split(), meant) for words, meant in mistyped.items()):
        with pytest.raises(click.exceptions.NoSuchCommand) as refused:
            construir(words, standalone_mode=False)
        assert f"Did you mean '{meant}'?" in refused.value.format_message(), "that one, and no other"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--config X check", "check --config X"),
        ("--spool=X check --json", "check --json --spool=X"),
        ("--images X image build", "image build --images X"),
        ("image --images X build", "image build --images X"),
        ("--tls never jobs", "jobs --tls never"),
    ],
)
def test_an_option_before_the_command_is_told_where_it_goes(typed: str, meant: str) -> None:
    with pytest.raises(click.exceptions.NoSuchOption) as refused:
        construir(typed.split(), standalone_mode=False, prog_name="construir")
    option = re.match(r"(?:image )?(--\w+)", typed)
    assert option
    expected = f"No such option '{option[1]}' before the command; it goes behind it: construir {meant}"
    assert refused.value.format_message() == expected


@pytest.mark.parametrize("typed", ["--nonsense check", "--config X", "--config X init"])
def test_an_option_that_no_command_has_is_only_unknown(typed: str) -> None:
    with pytest.raises(click.exceptions.NoSuchOption) as refused:
        construir(typed.split(), standalone_mode=False)
    assert "behind" not in refused.value.format_message()


@pytest.mark.parametrize("name", ["image", "layer", "node", "user"])
def test_the_help_of_a_group_has_whole_sentences(name: str) -> None:
    group = construir.get_command(click.Context(construir), name)
    assert group is not None
    assert "..." not in group.get_help(click.Context(group)).replace("[ARGS]...", "")


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_no_option_or_path_in_help_is_broken_at_a_hyphen(columns: int) -> None:
    seen = 0
    for name, command in commands(construir):
        text = command.get_help(command.context_class(command, info_name=name, terminal_width=columns))
        assert not re.search(r"\w-$", text, re.MULTILINE), text
        assert "\N{NON-BREAKING HYPHEN}" not in text
        seen += "~/.local/share/bash-completion/completions/construir" in text
    assert seen == 1 or columns < 60


def test_what_is_not_there_exits_with_66(tmp_path: Path) -> None:
    for words in (
        ["submit", str(tmp_path / "none"), "ftp://127.0.0.1:1"],
        ["user", "remove", "carol", f"--spool={tmp_path}"],
        ["user", "set", "carol", "--mail=a@example.org", f"--spool={tmp_path}"],
    ):
        argv = [sys.executable, "-m", "construir_ftp", *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (66, 1), done.stderr
