"""Progress bars and clocks for whoever sits at a terminal; lines, or nothing at all, for anybody else."""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from construir_ftp.cli.options import printable
from construir_ftp.diskimage.compare import Difference, Entry
from construir_ftp.units import in_words

# Where there is no terminal, how far something is.
_TOLD_EVERY_S = 30.0


@contextmanager
def bar() -> Iterator[Callable[[str, int, int], None]]:
    """While the context lasts, show what the function it gives is told: what is done, bytes of it done, all its bytes.

    All bytes may be nothing, where nobody can know. On leaving the context the bar is gone.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _what, _done, _all: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=None)

        def show(what: str, done_bytes: int, all_bytes: int) -> None:
            if progress.tasks[0].description != what:
                progress.reset(task, description=what, total=all_bytes or None)
            progress.update(task, completed=done_bytes)

        yield show


@contextmanager
def steps(what: str, count: int) -> Iterator[Callable[[str], None]]:
    """While the context lasts, tell each of the steps that the function it gives is told of as it begins: a bar with a
    clock on a terminal, a line each elsewhere. There are `count` at most.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        numbers = itertools.count(1)
        yield lambda step: click.echo(f"construir: {what}, step {next(numbers)} of {count}: {step}", err=True)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=count, completed=-1)

        def show(step: str) -> None:
            progress.update(task, description=f"{what}: {step}", advance=1)

        yield show


class Clock:
    """A line at the bottom of a terminal that says what is waited for, for how long, and how far it is.

    Elsewhere a line says so now and then, where it is known how far it is.
    """

    def __init__(self, every_s: float = _TOLD_EVERY_S) -> None:
        self._console = Console(stderr=True)
        self._progress: Progress | None = None
        self._what = ""
        self._begun_s = self._told_s = 0.0
        self._every_s = every_s

    def show(self, what: str, progress: str = "") -> None:
        """Wait for that from now on, or go on to; for nothing, if it is empty: then the line is gone."""
        if not what or what != self._what:
            self._begin(what)
        words = f"{what}: {progress}" if progress else what
        if self._progress is not None:
            self._progress.update(TaskID(0), description=escape(words))
        elif what and progress and time.monotonic() - self._told_s >= self._every_s:
            self._told_s = time.monotonic()
            click.echo(f"construir: {words}, {in_words(round(self._told_s - self._begun_s))} so far", err=True)

    def _begin(self, what: str) -> None:
        self._what, self._begun_s = what, time.monotonic()
        self._told_s = self._begun_s
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        if what and self._console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            self._progress = Progress(*columns, console=self._console, transient=True)
            self._progress.add_task(escape(what), total=None)
            self._progress.start()

    def close(self) -> None:
        """Wait for nothing any more."""
        self.show("")


# -- files of an image -------------------------------------------------------------------------------------------

# How files that differ are shown: a line for each, marked as diff(1) does, names made printable; or as JSON.

_SHOWN_CHARACTERS = 19  # of a digest: "sha256:" and twelve more


def file_line(difference: Difference, without: str = "") -> str:
    """One file: what it is if it was added or removed, else what has changed of it, but for the field `without`."""
    only = difference.new if difference.old is None else difference.old if difference.new is None else None
    fields = [name for name in difference.fields() if name != without]
    told = _whole(only) if only else ", ".join(_field(difference, name) for name in fields)
    mark = "+" if difference.old is None else "-" if difference.new is None else "~"
    return f"{mark} {printable(os.fsdecode(difference.path))} {told}"


def _whole(entry: Entry) -> str:
    words = [entry.kind, entry.mode, entry.owner, f"{entry.size_bytes} B", _short(entry.content)]
    return " ".join(filter(None, words))


def _field(difference: Difference, name: str) -> str:
    old, new = (_short(str(getattr(entry, name))) for entry in (difference.old, difference.new))
    return f"{name.partition('_')[0]} {old} -> {new}"


def _short(text: str) -> str:
    return printable(text[:_SHOWN_CHARACTERS] if text.startswith("sha256:") else text)


def file_objects(files: list[Difference]) -> list[dict[str, object]]:
    """Differences of files as they are in JSON."""
    return [{"path": printable(os.fsdecode(file.path)), "old": file.old, "new": file.new} for file in files]
