"""How the differences of two base images are printed: a line for each, marked as diff(1) does."""

from collections.abc import Iterator

import msgspec

from construir_ftp.cli.filelines import file_line, file_objects
from construir_ftp.cli.options import printable
from construir_ftp.image.diff import Change, Report


def difference_lines(report: Report) -> Iterator[str]:
    """All of a report; a line that says so if there is no difference."""
    if report.is_same():
        yield "the same, byte for byte"
    yield from _section("recipe", [_change(change) for change in report.settings])
    yield from _section("base-image/", [_marked(change, change.what) for change in report.ingredients])
    yield from _section("packages", [_change(change) for change in report.packages])
    yield from _section("parts", [_marked(change, change.what) for change in report.parts])
    yield from _section("files", [file_line(difference) for difference in report.files])


def _section(title: str, entries: list[str]) -> Iterator[str]:
    if entries:
        yield f"{title}: {len(entries)}"
        yield from (f"  {entry}" for entry in entries)


def _change(change: Change) -> str:
    values = " -> ".join(printable(value) for value in (change.old, change.new) if value is not None)
    return _marked(change, f"{change.what} {values}")


def _marked(change: Change, text: str) -> str:
    return f"{'+' if change.old is None else '-' if change.new is None else '~'} {text}"


def difference_json(report: Report) -> str:
    """A report as JSON; a path that is not UTF-8 has its bytes as escapes."""
    plain = msgspec.to_builtins(msgspec.structs.replace(report, files=[]))
    plain["files"] = file_objects(report.files)
    return msgspec.json.format(msgspec.json.encode(plain)).decode()
