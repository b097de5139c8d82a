"""Which files of a job's image are its artifacts: the patterns of `outputs` in construir.toml, what an artifact may be
called, and what the reader in its jail (artifact_reader) and the one who writes the files (artifacts) tell each other.

A pattern is the path of a file from the root of the image. `*`, `?` and `[...]` are as in a shell, which they match no
"/" for and no "." at the beginning of a name; `**`, alone between two "/", is any number of directories.
"""

import fnmatch
import re
from collections.abc import Iterable
from typing import Annotated

import msgspec

from construir_ftp import schema

_ANY_DEPTH = "**"
# A control character, or a backslash, can only be a mistake here.
_PATTERN = re.compile(r"(?!.*(?:^|/)\.{1,2}(?:/|$))[^/\\\0-\x1f\x7f]+(?:/[^/\\\0-\x1f\x7f]+)*")
_PATTERN_CHARACTERS = 200

# Nothing that a shell, an FTP client, a listing or SHA256SUMS could take for something else.
_NAME = r"[A-Za-z0-9_+][A-Za-z0-9._+~@=,-]{0,127}"
_is_name = re.compile(_NAME).fullmatch
# What is told of one file, and of how many at most.
SAYING_CHARACTERS, MOST_SAYINGS = 300, 100

Name = Annotated[str, msgspec.Meta(pattern=rf"^{_NAME}\Z")]
Saying = Annotated[str, msgspec.Meta(pattern=r"^[ -~]+\Z", max_length=SAYING_CHARACTERS)]


class Allowance(msgspec.Struct, frozen=True):
    """The most that is taken of one job."""

    files: int
    bytes: int


class Asked(msgspec.Struct, frozen=True):
    """What the artifact reader is told."""

    patterns: tuple[str, ...]
    limits: Allowance


class Found(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="file"):
    """An artifact, whose `bytes` follow; none where it is the same file as the one called `like` before it.

    `executable` is whether its owner could run it in the image.
    """

    name: Name
    path: Saying
    bytes: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    like: Name | None = None
    executable: bool = False


class End(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="end"):
    """There are no more; `left_out` says what is missing, and why."""

    left_out: Annotated[list[Saying], msgspec.Meta(max_length=MOST_SAYINGS)]


def decode(line: bytes) -> Found | End:
    """What the artifact reader said. Raises msgspec.MsgspecError if it is nonsense."""
    said: Found | End = schema.from_json(line, Found | End)
    return said


def is_pattern(text: str) -> bool:
    """Whether `text` can be one of `outputs`."""
    is_path = len(text) <= _PATTERN_CHARACTERS and _PATTERN.fullmatch(text) is not None
    return is_path and all(part == _ANY_DEPTH or _ANY_DEPTH not in part for part in text.split("/"))


def is_name(text: str) -> bool:
    """Whether an artifact can be called `text`."""
    return _is_name(text) is not None


# How far in each pattern the path to a directory leads: positions between its parts.
_Positions = tuple[frozenset[int], ...]


class Patterns:
    """All patterns of a job; paths have no "/" at either end. A directory is asked for before what is in it."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(patterns)
        self._parts = [tuple(map(_part, pattern.split("/"))) for pattern in self.patterns]
        self._reached: dict[str, _Positions] = {"": tuple(_skip(parts, {0}) for parts in self._parts)}

    def enters(self, directory: str) -> bool:
        """Whether a file in this directory, or further below, may match."""
        reached = self._reached[directory] = self._after(directory)
        return any(position < len(parts) for parts, at in zip(self._parts, reached, strict=True) for position in at)

    def matched(self, path: str) -> list[int]:
        """The numbers of the patterns that match a file."""
        ends = zip(self._parts, self._after(path), strict=True)
        return [number for number, (parts, reached) in enumerate(ends) if len(parts) in reached]

    def _after(self, path: str) -> _Positions:
        above, _, name = path.rpartition("/")
        return tuple(
            _skip(parts, _step(parts, at, name)) if at else at
            for parts, at in zip(self._parts, self._reached[above], strict=True)
        )


def _part(part: str) -> re.Pattern[str] | None:
    """None is any number of directories."""
    if part == _ANY_DEPTH:
        return None
    return re.compile(("" if part.startswith(".") else r"(?!\.)") + fnmatch.translate(part))


def _step(parts: tuple[re.Pattern[str] | None, ...], reached: frozenset[int], name: str) -> set[int]:
    """Where one name more leads."""
    found = set()
    for position in reached:
        if position < len(parts):
            part = parts[position]
            if part is None and not name.startswith("."):
                found.add(position)
            elif part is not None and part.match(name):
                found.add(position + 1)
    return found


def _skip(parts: tuple[re.Pattern[str] | None, ...], reached: set[int]) -> frozenset[int]:
    """The same, and where no name at all leads on from there: past each `**`."""
    found = set(reached)
    for position in sorted(reached):
        while position < len(parts) and parts[position] is None:
            position += 1
            found.add(position)
    return frozenset(found)
