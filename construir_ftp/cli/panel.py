"""What `construir top` draws: a board as a screen of a certain size, in colour, or as plain lines.

Pure drawing: a board goes in, what rich can print comes out. Whatever a server says is made printable.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.style import Style
from rich.table import Table
from rich.text import Text

from construir_ftp.cli.options import on_one_line, printable
from construir_ftp.jobs.board import Board, Line
from construir_ftp.jobs.status import in_slots
from construir_ftp.units import in_words

SORTS = ("time", "job", "contributor", "status")
_COLOURS = {"success": "green", "failed": "red", "cancelled": "bright_black", "lost": "magenta"}
_BAR_CELLS = 12
# Lines beside the tables: title, meters, keys.
_FIXED_LINES = 3
# A table's title and its header.
_HEAD_LINES = 2
_NARROW, _WIDE = 70, 100
_MOST_NAME = 16

_KEYS: dict[str, Callable[[Line], tuple[object, ...]]] = {
    "time": lambda _line: (),
    "job": lambda line: (line.id.partition("-")[2].partition("-")[2] or line.id,),
    "contributor": lambda line: (line.contributor,),
    "status": lambda line: (line.status or line.why,),
}


class Scene(NamedTuple):
    """A board, and how it is to be looked at. `problem` is why it is not of now, if it isn't."""

    board: Board
    where: str
    sort: str = "time"
    problem: str = ""
    now: datetime | None = None

    def lines(self, state: str) -> list[Line]:
        """The jobs in a state, as they are to be sorted: by their own order first."""
        return sorted((line for line in self.board.lines if line.state == state), key=_KEYS[self.sort])


class Panel:
    """A screen of it, as high and as wide as the terminal is when it is drawn."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = console.size
        troubles = [*_troubles(self._scene, width)][: max(0, height - _FIXED_LINES)]
        yield _title(self._scene, width)
        yield _meters(self._scene.board, width)
        yield from troubles
        yield from _tables(self._scene, width, height - _FIXED_LINES - len(troubles))
        yield _keys(self._scene, width)


def _cut(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    text.no_wrap = True
    return text


def _title(scene: Scene, width: int) -> Text:
    clock = f"{scene.board.summary.time or scene.now:%H:%M:%S} UTC " if scene.board.summary.time or scene.now else ""
    name = Text(f" construir top  {on_one_line(scene.where)}")
    name.truncate(max(0, width - len(clock) - 1), overflow="ellipsis")
    name.pad_right(max(0, width - len(clock) - cell_len(name.plain)))
    return Text.assemble(name, clock, style=Style(color="black", bgcolor="cyan", bold=True), no_wrap=True)


def _meters(board: Board, width: int) -> Text:
    summary = board.summary
    busy = in_slots(summary.running)
    filled = min(_BAR_CELLS, round(_BAR_CELLS * busy / summary.slots)) if summary.slots else 0
    how = f"{summary.accelerator or 'no machines'}{', warm' if summary.warm else ''}"
    return _cut(
        Text.assemble(
            " machines ",
            ("█" * filled, "green"),
            ("░" * (_BAR_CELLS - filled), "bright_black"),
            (f" {busy}/{summary.slots}", "bold"),
            "   waiting ",
            (str(summary.waiting), "bold yellow" if summary.waiting else "bold"),
            "   free ",
            (_gibibytes(summary.free_bytes), "bold" if summary.accepts_uploads else "bold red"),
            f" (keeps {_gibibytes(summary.kept_free_bytes)})   {on_one_line(how)}",
        ),
        width,
    )


def _gibibytes(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.3g} GiB"


def _troubles(scene: Scene, width: int) -> Iterable[Text]:
    """What is not as usual, a line each."""
    summary = scene.board.summary
    if scene.problem:
        yield _cut(Text(f" {on_one_line(scene.problem)}", "bold red"), width)
    if summary.why_no_uploads:
        yield _cut(Text(f" uploads are refused: {on_one_line(summary.why_no_uploads)}", "bold red"), width)
    if summary.why:
        yield _cut(Text(f" {on_one_line(summary.why)}", "yellow"), width)


def _tables(scene: Scene, width: int, height: int) -> Iterable[Text | Table]:
    """Three tables, in as many lines: what runs first, then what waits, a third of the rest at most, then what is done.

    What has no room is counted in its table's title.
    """
    used = 0
    for state, share in (("running", 2), ("waiting", 3), ("done", 1)):
        lines = scene.lines(state)
        room = (height - used) // share - _HEAD_LINES
        if (not lines and state != "done") or room < 1:
            continue
        shown = lines[:room]
        used += _HEAD_LINES + len(shown)
        yield _heading(state, len(shown), max(len(lines), scene.board.summary.waiting if state == "waiting" else 0))
        yield _table(scene, state, shown, width)
    yield Text("\n" * max(0, height - used), end="")


def _heading(state: str, shown: int, count: int) -> Text:
    more = f", {shown} shown" if shown < count else ""
    many = "" if state == "done" and not more else f" {count}{more}"
    return Text(f" {state.upper()}{'' if state == 'done' else many}", "bold")


def _table(scene: Scene, state: str, lines: list[Line], width: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 1), pad_edge=False, width=width, header_style="bright_black")
    columns = _columns(scene, state, width)
    for number, (name, _) in enumerate(columns):
        is_last = number == len(columns) - 1
        table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1 if is_last else None)
    for line in lines:
        table.add_row(*(cell(line) for _, cell in columns))
    return table


def _columns(scene: Scene, state: str, width: int) -> list[tuple[str, Callable[[Line], Text]]]:
    """What a table has, by the name of each column: few of them where the terminal is narrow."""
    most = _job_width(scene, width)
    job = (" job".ljust(most), lambda line: Text(f" {_end_of(on_one_line(line.id), most - 1)}"))
    is_told = width >= _NARROW and any(line.contributor for line in scene.lines(state))
    who = [("contributor", lambda line: _cut(Text(on_one_line(line.contributor)), _MOST_NAME))] if is_told else []
    if state == "running":
        return [job, *who, ("runs for", lambda line: _since(scene, line)), ("", _why)]
    if state == "waiting":
        return [job, *who, ("place", lambda line: Text(str(line.place)))]
    when = [("ended (UTC)", _ended)] if width >= _WIDE else []
    return [job, *who, *when, ("took", _took), ("status", _status)]


def _job_width(scene: Scene, width: int) -> int:
    """The same in all tables: as wide as ids are, but two fifths of the screen at most."""
    longest = max((cell_len(on_one_line(line.id)) for line in scene.board.lines), default=0)
    return min(longest + 1, max(12, width * 2 // 5))


def _end_of(job_id: str, width: int) -> str:
    """An id, without its beginning where it is too long: its end says what the job is called."""
    if cell_len(job_id) <= width:
        return job_id
    return "…" + set_cell_size(job_id[::-1], width - 1)[::-1]


def _since(scene: Scene, line: Line) -> Text:
    now = scene.now or scene.board.summary.time
    if line.since is None or now is None:
        return Text("")
    return Text(_clock((now - line.since).total_seconds()), "cyan")


def _clock(seconds: float) -> str:
    whole = max(0, int(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def _why(line: Line) -> Text:
    return Text(on_one_line(line.why), "yellow")


def _ended(line: Line) -> Text:
    return Text(f"{line.since:%m-%d %H:%M}" if line.since else "", "bright_black")


def _took(line: Line) -> Text:
    return Text(_clock(line.took_s) if line.took_s is not None else "")


def _status(line: Line) -> Text:
    kind = line.status.partition(",")[0]
    told = Text(on_one_line(line.status), _COLOURS.get(kind, "yellow"))
    says_more = line.why and kind != "success" and not line.why.startswith("run.sh ended with exit status")
    return told.append(f"  {on_one_line(line.why)}", "bright_black") if says_more else told


def _keys(scene: Scene, width: int) -> Text:
    words = [("q", "quit"), ("s", f"sort: {scene.sort}"), ("space", "look now")]
    pieces = [piece for key, what in words for piece in ((f" {key} ", "black on white"), f" {what}  ")]
    told = Text.assemble(*pieces, no_wrap=True, end="")
    told.truncate(width - 1)
    return told


# -- without a terminal ----------------------------------------------------------------------------------------


def plain(scene: Scene, before: Board | None) -> Iterable[str]:
    """What there is to say to a file or a pipe: all of it the first time, then what has changed."""
    summary = scene.board.summary
    stamp = f"{summary.time or scene.now:%Y-%m-%d %H:%M:%S}" if summary.time or scene.now else ""
    told = {line.id: _plain_line(line) for line in before.lines} if before else {}
    busy, slots = in_slots(summary.running), summary.slots
    machines = f"{busy} of {slots} machines run" if slots else "no machine is there yet"
    counts = f"{machines}, {summary.waiting} wait"
    if before is None or _counts(before) != _counts(scene.board):
        troubles = [f"uploads are refused: {summary.why_no_uploads}" if summary.why_no_uploads else "", summary.why]
        yield printable(
            "; ".join(filter(None, [f"{stamp} {counts}, {_gibibytes(summary.free_bytes)} free", *troubles]))
        )
    for line in scene.board.lines:
        if told.get(line.id) != (words := _plain_line(line)):
            yield printable(f"{stamp} {line.id} {words}")


def _counts(board: Board) -> tuple[object, ...]:
    summary = board.summary
    return in_slots(summary.running), summary.slots, summary.waiting, summary.why_no_uploads, summary.why


def _plain_line(line: Line) -> str:
    if line.state == "done":
        took = f" after {in_words(line.took_s)}" if line.took_s is not None else ""
        return f"{line.status}{took}"
    return " ".join(filter(None, [line.state, on_one_line(line.why)]))
