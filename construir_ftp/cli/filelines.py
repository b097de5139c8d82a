"""How files that differ are shown: a line for each, marked as diff(1) does, names made printable; or as JSON."""

import os

from construir_ftp.cli.options import printable
from construir_ftp.comparison import Difference, Entry

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
