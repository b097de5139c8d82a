"""A progress bar for whoever sits at a terminal; nothing at all for anybody else."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from construir_ftp.cli.options import printable
from construir_ftp.diskimage.compare import Difference, Entry


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
