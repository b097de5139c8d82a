"""What pages say of commands and of the configuration, held against those that there are."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from construir_ftp.cli.main import construir
from construir_ftp.config import Config
from tests.support.places import PROJECT

PAGES = sorted([*(PROJECT / "docs").glob("*.md"), *PROJECT.glob("*.md")])
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^(?:    .*\n)+", re.MULTILINE)
_SPAN = re.compile(r"`([^`]+)`")
# Where a shell expects a command: at the beginning of a line, behind another command, or of one that starts it.
_COMMAND = re.compile(r"(?:^|[|&;(] ?| -- |if |! )construir ([a-z][^|&;)>#\n]*)", re.MULTILINE)
_KEY = re.compile(r"(\w+)\.(\w+)(?: = .*)?")
_KEYS = {section.name: section.type.__struct_fields__ for section in msgspec.structs.fields(Config)}
# Files that are called like a key.
_FILES = {"nodes.json", "runner.json", "slurm.conf"}


def _code(page: Path) -> list[str]:
    """What a page has in fences, in indented blocks, and within lines."""
    text = page.read_text()
    return [*_FENCE.findall(text), *_BLOCK.findall(text), *_SPAN.findall(_FENCE.sub("", text))]


def _wrong(words: list[str]) -> Iterator[str]:
    """The words of a command line that are no command and no option of it."""
    command: click.Command = construir
    for word in words:
        if word.startswith("--"):
            options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            yield from () if word.partition("=")[0] in options else (word,)
        elif isinstance(command, click.Group):
            found = command.get_command(click.Context(command), word)
            if found is None:
                yield word
                return
            command = found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_that_a_page_names_is_one_and_has_the_options(page: Path) -> None:
    commands = [command.split() for code in _code(page) for command in _COMMAND.findall(code.replace("\\\n", " "))]
    assert [(words, wrong) for words in commands if (wrong := list(_wrong(words)))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_key_that_a_page_names_is_in_the_configuration(page: Path) -> None:
    named = [found.groups() for code in _code(page) if (found := _KEY.fullmatch(code)) and found[1] in _KEYS]
    assert [key for key in named if key[1] not in _KEYS[key[0]] and ".".join(key) not in _FILES] == []


def test_what_no_command_has_is_seen() -> None:
    assert list(_wrong(["pack", "--no-such", "greet"])) == ["--no-such"]
    assert list(_wrong(["image", "polish"])) == ["polish"]
    assert list(_wrong(["layer", "gc", "--dry-run"])) == []
