"""Text of a page: what strangers wrote, made visible; sizes, times and lengths of time in words.

Nothing here knows HTML: pages escapes all that it prints.
"""

import re
from datetime import UTC, datetime

# ECMA-48, 5.4: control sequences; 5.6: command strings, such as a terminal's title.
_SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_UNITS = ("KiB", "MiB", "GiB", "TiB")
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


def visible(text: str) -> str:
    """Text of unknown origin, in which nothing is hidden: control and bidirectional characters come as escapes.

    What is left can stand in any HTML or XML 1.0 document, once it is escaped for it.
    """
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)


def log_text(content: bytes) -> str:
    """A part of a log as a terminal without colours would leave it: of a line that was begun again its last form."""
    text = _SEQUENCES.sub("", content.decode(errors="replace")).replace("\r\n", "\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def size(size_bytes: float) -> str:
    """Such as 512 B, 1.5 MiB."""
    if size_bytes < 1024:
        return f"{int(size_bytes)} B"
    for unit in _UNITS:
        size_bytes /= 1024
        if size_bytes < 1024 or unit == _UNITS[-1]:
            break
    return f"{size_bytes:.1f} {unit}" if size_bytes < 10 else f"{size_bytes:.0f} {unit}"


def length(seconds: float) -> str:
    """A length of time, in two units at most."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return _two(whole // 60, "min", whole % 60, "s")
    if whole < _DAY_S:
        return _two(whole // 3600, "h", whole % 3600 // 60, "min")
    return _two(whole // _DAY_S, "d", whole % _DAY_S // 3600, "h")


def _two(more: int, unit: str, rest: int, smaller: str) -> str:
    return f"{more} {unit} {rest} {smaller}" if rest else f"{more} {unit}"


def moment(seconds: float) -> datetime:
    """Seconds since the Epoch as an aware time."""
    return datetime.fromtimestamp(seconds, UTC)


def clock(time: datetime) -> str:
    """A moment for people."""
    return f"{time:%Y-%m-%d %H:%M} UTC"


def stamp(time: datetime) -> str:
    """The same for programs (RFC 3339)."""
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def count(number: int, noun: str) -> str:
    """So many of something, such as 1 job, 2 jobs."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
