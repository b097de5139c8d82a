"""A progress bar for whoever sits at a terminal; nothing at all for anybody else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn


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
