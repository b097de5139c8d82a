"""Tables whose cells are never cut. Apart from options, since rich takes long to load, and parts draw none."""

import itertools
import shutil
from collections.abc import Iterable

import click
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table

_WIDE_CHARACTERS = 1000
# Less of the end of a line says nothing.
_LEAST_CHARACTERS = 20


def print_table(table: Table, ends: Iterable[str] = (), nothing: str = "") -> None:
    """Print a table whose cells are never cut, as wide as they need.

    `ends` has a text for the end of each line, the header's first. On a terminal it is cut to what the line has left,
    or stands in the next line if that is too little. For a table without rows `nothing` is told, if it is given.
    """
    if nothing and not table.row_count:
        click.echo(f"construir: {nothing}", err=True)
        return
    table.pad_edge, table.padding = False, (0, 1, 0, 0)
    for column in table.columns:
        column.no_wrap = True
    # rich gives print() no more than the console has; TERM=dumb has 80 characters unless both are said.
    wide = Console(width=_WIDE_CHARACTERS, height=_WIDE_CHARACTERS)
    with wide.capture() as drawn:
        wide.print(table)
    most = shutil.get_terminal_size().columns if wide.is_terminal else None
    used = wide.measure(table).maximum + 1
    for line, end in itertools.zip_longest(drawn.get().splitlines(), ends, fillvalue=""):
        click.echo(_ended(line, end, used, most))


def _ended(line: str, end: str, used: int, most: int | None) -> str:
    """A line of a table, `used` characters with the space after it, and its end; `most` is the terminal's width."""
    if not end:
        return line.rstrip()
    if most is None:
        return f"{line} {end}"
    if most - used >= _LEAST_CHARACTERS:
        return f"{line} {_cut(end, most - used)}"
    return f"{line.rstrip()}\n  {_cut(end, max(most - 2, _LEAST_CHARACTERS))}"


def _cut(text: str, most: int) -> str:
    return text if cell_len(text) <= most else set_cell_size(text, most - 1).rstrip() + "…"
