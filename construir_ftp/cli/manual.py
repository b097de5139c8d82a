"""`construir man` and `construir completion`: what the commands say of themselves, for man(1) and for shells.

Pages are made of the same help that --help prints, construir.toml(5) of the keys that construir init explains, and
construir-server.toml(5) of construir-server.toml, which has every key of the configuration with its default.
"""

import os
import re
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from construir_ftp import __version__
from construir_ftp.cli.options import PATH
from construir_ftp.errors import UsageError
from construir_ftp.jobs.request import KEYS

_ESCAPES = {"\\": "\\e", "-": "\\-", '"': "\\(dq", "~": "\\(ti", "^": "\\(ha"}
_SHELLS = ("bash", "zsh", "fish")
# As docs/results.md has them.
_CODES = (
    ("0", "Fine; of a job: success, and nothing else."),
    ("1, 2", "Failed; the command makes no sense."),
    ("65", "What was sent, or is to be sent, is refused: it is no job, or not one for this server."),
    ("66", "There is nothing by that name."),
    ("69", "The server can't be reached; here, QEMU or a library is missing."),
    ("70, 71, 72, 73", "The job ended as lost, no-result, dependency-failed, cancelled."),
    ("74", "What came is damaged: it is not what SHA256SUMS says."),
    ("75", "Not now: no room, too many sessions, not done yet; the same command may succeed later."),
    ("76", "The server answers what makes no sense."),
    ("77", "The login was refused."),
    ("78", "Bad configuration."),
    ("79", "A result is not signed by a key that is known for it."),
    ("124, 126", "The job ended as timeout or idle-timeout; its run.sh could not be run."),
    ("130", "Interrupted by Ctrl-C."),
    ("other", "A job's own, of a command that waits for one."),
)


@click.command("completion")
@click.argument("shell", type=click.Choice(_SHELLS))
def completion_command(shell: str) -> None:
    """Print what has SHELL complete the commands and options of construir.

    For bash: construir completion bash >~/.local/share/bash-completion/completions/construir. For zsh, into a file
    _construir in a directory of $fpath. For fish: into ~/.config/fish/completions/construir.fish.
    """
    kind = get_completion_class(shell)
    root = click.get_current_context().find_root()
    assert kind is not None
    # click's source() would start bash to ask for its version.
    script = kind(root.command, {}, "construir", "_CONSTRUIR_COMPLETE")
    click.echo(script.source_template % script.source_vars())


@click.command("man")
@click.option("-o", "output", type=PATH, default="man", show_default=True, help="Directory to write the pages into.")
def man_command(output: Path) -> None:
    """Write the manual pages, one for each command, construir.toml(5) and construir-server.toml(5).

    Then man -M DIR construir-pack shows one. They are in DIR/man1 and DIR/man5.
    """
    root = click.get_current_context().find_root().command
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is no directory; name another with -o")
    pages = {f"man1/{name.replace(' ', '-')}.1": text for name, text in _pages(root, "construir")}
    pages |= {"man5/construir.toml.5": toml_page(), "man5/construir-server.toml.5": server_page()}
    for name, text in pages.items():
        path = output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    click.echo(f"wrote {len(pages)} pages into {output}")


# -- pages of commands -----------------------------------------------------------------------------------


def _pages(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    context = click.Context(command, parent, name.rpartition(" ")[2], **command.context_settings)
    yield name, command_page(command, name, context)
    if isinstance(command, click.Group):
        for sub in command.list_commands(context):
            below = command.get_command(context, sub)
            if below is not None:
                yield from _pages(below, f"{name} {sub}", context)


def command_page(command: click.Command, name: str, context: click.Context) -> str:
    """The text of a page, in man(7)'s macros."""
    summary, *paragraphs = _paragraphs(command.help or "")
    first = summary.partition(". ")[0]
    pieces = command.collect_usage_pieces(context)
    lines = [
        _title(name.replace(" ", "-"), 1),
        ".SH NAME",
        f"{_text(name.replace(' ', '-'))} \\- {_text(first.rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_text(name)}",
        *([_text(" ".join(pieces))] if pieces else []),
        ".SH DESCRIPTION",
        _text(summary),
    ]
    for paragraph in paragraphs:
        lines += [".PP", _text(paragraph)]
    lines += _options(command, context)
    if isinstance(command, click.Group):
        lines += _commands(command, name, context)
    lines += [".SH EXIT STATUS", *_list(_CODES)]
    lines += [".SH SEE ALSO", _see_also(name)]
    return "\n".join(lines) + "\n"


def _paragraphs(text: str) -> list[str]:
    found = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text.strip())]
    return found or [""]


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    options = [parameter for parameter in command.get_params(context) if isinstance(parameter, click.Option)]
    records = [record for option in options if (record := option.get_help_record(context))]
    if records:
        yield ".SH OPTIONS"
        yield from _list(records)
    named = [
        (option.envvar, f"Has the meaning of {option.opts[0]}, which wins over it.")
        for option in options
        if isinstance(option.envvar, str)
    ]
    if named:
        yield ".SH ENVIRONMENT"
        yield from _list(named)


def _commands(group: click.Group, name: str, context: click.Context) -> Iterator[str]:
    yield ".SH COMMANDS"
    for sub in group.list_commands(context):
        command = group.get_command(context, sub)
        if command is not None:
            page = f"{name} {sub}".replace(" ", "-")
            yield from _list([(f"{page}(1)", command.get_short_help_str(limit=200))])


def _see_also(name: str) -> str:
    above = name.rpartition(" ")[0].replace(" ", "-")
    pages = [(above, 1)] if above else []
    pages += [("construir.toml", 5), ("construir-server.toml", 5)]
    return ",\n".join(f".BR {_text(page)} ({section})" for page, section in pages)


def _list(entries: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, meaning in entries:
        yield from (".TP", f".B {_text(term)}", _text(meaning))


# -- construir.toml(5) -----------------------------------------------------------------------------------


def toml_page() -> str:
    """The text of construir.toml's page."""
    lines = [
        _title("construir.toml", 5),
        ".SH NAME",
        "construir.toml \\- what a job needs",
        ".SH DESCRIPTION",
        _text("A file construir.toml beside run.sh, in TOML. It is optional, and so is every key in it."),
        _text("What can't be had is refused in the reply to the upload. Sizes and times have units."),
        _text("The appliance's own configuration has other keys: see construir-server.toml(5)."),
    ]
    table = None
    for key in KEYS:
        if key.table != table:
            table = key.table
            lines += [".SH " + (_text(f"THE TABLE [{table}]") if table else "KEYS")]
        lines += [*_list([(f"{key.name} = {key.example}", key.meaning)])]
    lines += [".SH SEE ALSO", ".BR construir-init (1),", ".BR construir-pack (1)"]
    return "\n".join(lines) + "\n"


# -- construir-server.toml(5) ----------------------------------------------------------------------------


def server_page() -> str:
    """The text of the page of the appliance's configuration: each key with its default, and what it means."""
    text = (resources.files("construir_ftp.cli") / "construir-server.toml").read_text(encoding="utf-8")
    lines = [
        _title("construir-server.toml", 5),
        ".SH NAME",
        "construir\\-server.toml \\- how an appliance is run",
        ".SH DESCRIPTION",
        _text("A file in TOML, with any name. --config or CONSTRUIR_CONFIG says where it is."),
        _text("Each key can be left out; it is shown here with the value that it has then."),
    ]
    for name, entries in _tables(text):
        lines += [".SH " + _text(f"THE TABLE [{name}]"), *_list(entries)]
    lines += [".SH SEE ALSO", ".BR construir\\-serve (1),", ".BR construir\\-check (1),", ".BR construir.toml (5)"]
    return "\n".join(lines) + "\n"


def _tables(text: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each table of a commented TOML file: its name, and of each key its line and the comment above that."""
    for part in re.split(r"^\[", text, flags=re.MULTILINE)[1:]:
        name, _, body = part.partition("]\n")
        entries: list[tuple[str, str]] = []
        comment: list[str] = []
        for line in body.splitlines():
            if line.startswith("#"):
                comment.append(line.removeprefix("#").strip())
            elif line:
                entries.append((line, " ".join(comment)))
                comment = []
        yield name, entries


# -- troff -----------------------------------------------------------------------------------------------


def _title(name: str, section: int) -> str:
    told = os.environ.get("SOURCE_DATE_EPOCH", "")
    date = datetime.fromtimestamp(int(told) if told.isdecimal() else time.time(), UTC)
    title = name.upper() if section == 1 else name
    return f'.TH {_text(title)} {section} {date:%Y-%m-%d} "Construir {__version__}" Construir'


def _text(text: str) -> str:
    """Text as troff takes it (groff_char(7)): a hyphen is a minus, a quotation mark none of a macro's, and what begins
    a line no macro.
    """
    escaped = text.translate({ord(char): name for char, name in _ESCAPES.items()})
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
