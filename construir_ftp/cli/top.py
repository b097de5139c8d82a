"""`construir top`: what goes on, live, of the appliance here or of a server; plain lines where there is no terminal."""

import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live

from construir_ftp.cli.options import PATH, DurationType, settings_of
from construir_ftp.cli.panel import SORTS, Panel, Scene, plain
from construir_ftp.cli.servers import Reach, reaching, tell
from construir_ftp.client import board as remote
from construir_ftp.client.connection import plainly
from construir_ftp.errors import ConstruirError
from construir_ftp.jobs.board import Board
from construir_ftp.units import Duration

# How long a key, or a terminal of another size, may go unnoticed.
_TICK_S = 0.2
_DRAW_EVERY = 5
_AGAIN_S = 3.0

Show = Callable[[Board], None]


@click.command("top")
@click.option(
    "--here", is_flag=True, help="The appliance on this computer, even if CONSTRUIR_SERVER names another one."
)
@click.option("--config", "config_path", type=PATH, envvar="CONSTRUIR_CONFIG", help="The appliance's configuration.")
@click.option("--spool", type=PATH, envvar="CONSTRUIR_SPOOL", help="The appliance's spool.")
@click.option("--server", help="A server, as ftp://HOST:PORT; else CONSTRUIR_SERVER's; else the appliance here.")
@click.option("--every", type=DurationType(), default="2s", show_default=True, help="How often to look.")
@click.option("--last", type=click.IntRange(0, 1000), default=50, show_default=True, help="How many that are done.")
@click.option("-n", "--count", type=click.IntRange(1), help="Look so many times, and print lines.")
@reaching
def top_command(
    reach: Reach,
    here: bool,
    config_path: Path | None,
    spool: Path | None,
    every: Duration,
    last: int,
    count: int | None,
) -> None:
    """Show what runs, what waits and what is done, live: of a server, or of the appliance on this computer.

    q quits, s sorts by another column, space looks now. Without a terminal it prints lines: first all, then what has
    changed.
    """
    is_here = here or reach.is_nowhere("")
    where, watching = _here(config_path, spool, last) if is_here else _there(reach, last)
    watch = _Watch(where, watching, max(_TICK_S, float(every)))
    if count is None and sys.stdout.isatty():
        _live(watch)
    else:
        _lines(watch, count)


# What gives boards, one for each call of the function it gets, until that raises.
_Watching = Callable[[Callable[[], None], Show], None]


def _here(config_path: Path | None, place: Path | None, last: int) -> tuple[str, _Watching]:
    # Imported here: contributors' commands work without what an appliance needs.
    from construir_ftp.cli.service import NOT_SERVED, is_served
    from construir_ftp.jobs.spool import Spool
    from construir_ftp.jobs.spool_board import Looks

    settings = settings_of(config_path, place)
    spool = Spool.find(settings.spool_path())
    if not is_served(spool):
        tell(NOT_SERVED)
    looks = Looks(spool, settings.spool.min_free, last)

    def watch(pause: Callable[[], None], show: Show) -> None:
        while True:
            show(looks.look())
            pause()

    return f"{spool.path}", watch


def _there(reach: Reach, last: int) -> tuple[str, _Watching]:
    where = reach.address()
    server, looks = reach.as_anyone(where), remote.Looks(last)

    def watch(pause: Callable[[], None], show: Show) -> None:
        with plainly(where), server.session() as ftp:
            while True:
                show(looks.look(ftp))
                pause()

    return str(where), watch


class _StoppedError(Exception):
    """Nobody looks any more."""


class _Watch:
    """Boards of one place, looked for in a thread of its own, so that keys are heard while a server is slow."""

    def __init__(self, where: str, watching: _Watching, every_s: float) -> None:
        self.where, self._watching, self._every_s = where, watching, every_s
        self.board: Board | None = None
        self.problem = ""
        self.fatal: ConstruirError | None = None
        self.looks = 0
        self._changed, self._is_stopped, self._is_wanted = threading.Condition(), False, False
        self._thread = threading.Thread(target=self._run, name="top", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more. What a server owes is not waited for."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def look_now(self) -> None:
        """Don't wait for the next time."""
        with self._changed:
            self._is_wanted = True
            self._changed.notify_all()

    def wait(self, looks: int, timeout_s: float | None = None) -> None:
        """Until so many looks were made, or there will be none. Raises what keeps the first one from being made."""
        with self._changed:
            self._changed.wait_for(lambda: self.looks >= looks or self.fatal is not None, timeout_s)
        if self.fatal is not None:
            raise self.fatal

    def _run(self) -> None:
        while True:
            try:
                self._watching(self._pause, self._show)
            except _StoppedError:
                return
            except ConstruirError as error:
                if not self._has_failed(error):
                    return

    def _has_failed(self, error: ConstruirError) -> bool:
        """Note that; whether to try again, after a while."""
        with self._changed:
            if self.board is None:
                self.fatal = error
                self._changed.notify_all()
                return False
            self.problem = f"trying again: {error}"
            return not self._changed.wait_for(lambda: self._is_stopped, _AGAIN_S)

    def _show(self, board: Board) -> None:
        with self._changed:
            self.board, self.problem = board, ""
            self.looks += 1
            self._changed.notify_all()

    def _pause(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or self._is_wanted, self._every_s)
            self._is_wanted = False
            if self._is_stopped:
                raise _StoppedError


# -- on a terminal ---------------------------------------------------------------------------------------------


def _live(watch: _Watch) -> None:
    watch.start()
    watch.wait(1)
    console, sort, drawn = Console(), SORTS[0], None
    try:
        with _keys() as key, Live(console=console, screen=True, auto_refresh=False) as live:
            for tick in _forever():
                scene = _scene(watch, sort)
                now_drawn = (watch.looks, watch.problem, sort, console.size, tick // _DRAW_EVERY)
                if now_drawn != drawn:
                    drawn = now_drawn
                    live.update(Panel(scene), refresh=True)
                pressed = key()
                if pressed in ("q", "Q", "\x03", "\x04"):
                    return
                if pressed == "s":
                    sort = SORTS[(SORTS.index(sort) + 1) % len(SORTS)]
                if pressed == " ":
                    watch.look_now()
    finally:
        watch.stop()


def _forever() -> Iterator[int]:
    tick = 0
    while True:
        yield tick
        tick += 1


def _scene(watch: _Watch, sort: str) -> Scene:
    assert watch.board is not None
    return Scene(watch.board, watch.where, sort, watch.problem, datetime.now(UTC))


@contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """While the context lasts, keys come as they are pressed: the function waits a tick for one, or returns ""."""
    try:
        import termios
        import tty
    except ImportError:  # Windows; Ctrl-C ends it there
        yield _no_key
        return
    if not sys.stdin.isatty():
        yield _no_key
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield lambda: os.read(descriptor, 1).decode(errors="replace") if _is_ready() else ""
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _is_ready() -> bool:
    return bool(select.select([sys.stdin], [], [], _TICK_S)[0])


def _no_key() -> str:
    threading.Event().wait(_TICK_S)
    return ""


# -- anywhere else ---------------------------------------------------------------------------------------------


def _lines(watch: _Watch, count: int | None) -> None:
    watch.start()
    before: Board | None = None
    looks = 0
    while count is None or looks < count:
        watch.wait(looks + 1)
        looks = watch.looks
        scene = _scene(watch, SORTS[0])
        for line in plain(scene, before):
            click.echo(line)
        before = scene.board
    watch.stop()
