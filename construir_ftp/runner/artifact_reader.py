"""The reader of artifacts: a program in a jail that finds them in a job's image, and passes on what is in them.

    construir_ftp.runner.artifact_reader ASKED     standard input is the image; for the output see outputs.Found and End

Each message is a line of JSON; after a Found come its bytes. What can't be read is left out and named: a file is
checked before it is announced. An image without a file system ends the output early, and what is wrong is said on
standard error. What bounds the looking is in docs/limits.md.
"""

import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator

import msgspec

from construir_ftp import schema
from construir_ftp.diskimage import extfs, tree
from construir_ftp.errors import ConstruirError
from construir_ftp.jobs import outputs
from construir_ftp.jobs.outputs import MOST_SAYINGS, Allowance, Asked, End, Found, Patterns

_PATH_CHARACTERS = 200
_WHY_CHARACTERS = 90
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


class Bounds(msgspec.Struct, frozen=True):
    """Names looked at, directories gone into and files that match, at most: within the memory of the reader's jail."""

    names: int = 1_000_000
    directories: int = 100_000
    files: int = 200_000


_BOUNDS = Bounds()


def main() -> None:
    """Write all of it to standard output."""
    asked = schema.from_json(sys.argv[1], Asked)
    try:
        with open(0, "rb", closefd=False) as disk, open(1, "wb", closefd=False) as wire:
            for piece in pick(extfs.Image(disk), asked):
                wire.write(piece)
    except ConstruirError as error:
        raise SystemExit(str(error)) from error
    except MemoryError as error:
        raise SystemExit("to look through the image takes more memory than is given here") from error


def pick(image: extfs.Image, asked: Asked, bounds: Bounds = _BOUNDS) -> Iterator[bytes]:
    """The output, in pieces."""
    left_out = LeftOut()
    files = _files(image, Patterns(asked.patterns), left_out, bounds)
    sent: dict[int, str] = {}
    for name, path, inode in _within(asked.limits, image, _named(files, left_out), left_out):
        like = sent.get(inode.number)
        is_program = bool(inode.mode & stat.S_IXUSR)
        yield _line(Found(name=name, path=_printable(path), bytes=inode.size_bytes, like=like, executable=is_program))
        if like is None:
            yield from image.stream(inode)
            sent[inode.number] = name
    yield _line(End(left_out.sayings()))


def _line(message: Found | End) -> bytes:
    return msgspec.json.encode(message) + b"\n"


class LeftOut:
    """What is left out, and why, in so few words as are passed on."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._count = 0

    def add(self, path: str, why: str) -> None:
        """Say why something is left out."""
        self._count += 1
        if len(self._said) < MOST_SAYINGS:
            self._said.append(f"{_printable(path) or '/'}: {_printable(why, _WHY_CHARACTERS)}")

    def sayings(self) -> list[str]:
        """All of it, or as much as there is room for, and how much more there is."""
        if self._count > MOST_SAYINGS:
            return [*self._said[: MOST_SAYINGS - 1], f"and {self._count - MOST_SAYINGS + 1} more"]
        return self._said


class _EnoughError(Exception):
    """One of the bounds is reached."""


class _Budget:
    """How many names may still be looked at, and directories gone into."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._names = self._directories = 0

    def spend_name(self) -> None:
        self._names += 1
        if self._names > self._bounds.names:
            raise _EnoughError(f"looking ended after {self._bounds.names} names")

    def may_enter(self) -> bool:
        self._directories += 1
        return self._directories <= self._bounds.directories

    def check_complete(self) -> None:
        """Raise _EnoughError if there were directories left."""
        if self._directories > self._bounds.directories:
            raise _EnoughError(f"only {self._bounds.directories} directories were looked into")


_File = tuple[str, extfs.Inode]


def _files(image: extfs.Image, patterns: Patterns, left_out: LeftOut, bounds: Bounds) -> list[_File]:
    """All regular files that a pattern matches, by their paths; what else matches is left out."""
    found: list[_File] = []
    unmatched = set(range(len(patterns.patterns)))
    try:
        for path, inode, matched in _matching(image, patterns, left_out, bounds):
            unmatched.difference_update(matched)
            if inode.kind != stat.S_IFREG:
                left_out.add(path, f"{_KINDS.get(inode.kind, 'of no known kind')}, and no file")
            else:
                _add(found, (path, inode), bounds.files)
    except _EnoughError as enough:
        left_out.add("", str(enough))
    except MemoryError:
        left_out.add("", f"looking ended after {len(found)} files that match: it takes more memory than is given")
    else:
        for number in sorted(unmatched):
            left_out.add(patterns.patterns[number], "matches no file")
    return sorted(found, key=lambda file: file[0])


def _add(found: list[_File], file: _File, most: int) -> None:
    if len(found) == most:
        raise _EnoughError(f"looking ended after {most} files that match")
    found.append(file)


def _matching(
    image: extfs.Image, patterns: Patterns, left_out: LeftOut, bounds: Bounds
) -> Iterator[tuple[str, extfs.Inode, list[int]]]:
    """What a pattern matches, except directories, and the numbers of the patterns that do."""
    budget = _Budget(bounds)

    def enters(path: bytes) -> bool:
        return patterns.enters(os.fsdecode(path)) and budget.may_enter()

    def broken(path: bytes, error: ConstruirError) -> None:
        budget.spend_name()
        left_out.add(os.fsdecode(path), str(error))

    for raw, inode in tree.walk(image, image.inode(extfs.ROOT), enters, broken):
        budget.spend_name()
        path = os.fsdecode(raw)
        if inode.kind != stat.S_IFDIR and (matched := patterns.matched(path)):
            yield path, inode, matched
    budget.check_complete()


def _named(files: list[_File], left_out: LeftOut) -> Iterator[tuple[str, str, extfs.Inode]]:
    """Each file's name as an artifact: its own, or its path with _ for / where several have that one."""
    having = Counter(_base(path) for path, _ in files)
    taken = set()
    for path, inode in files:
        own = _base(path)
        name = own if having[own] == 1 else path.replace("/", "_")
        if not outputs.is_name(name):
            left_out.add(path, "an artifact can't be called that")
        elif name in taken:
            left_out.add(path, f"another artifact is called {name}")
        else:
            taken.add(name)
            yield name, path, inode


def _base(path: str) -> str:
    return path.rpartition("/")[2]


def _within(
    limits: Allowance, image: extfs.Image, files: Iterator[tuple[str, str, extfs.Inode]], left_out: LeftOut
) -> Iterator[tuple[str, str, extfs.Inode]]:
    """As many as the limits allow and can be read, the first ones first."""
    count = total_bytes = 0
    checked: set[int] = set()
    for name, path, inode in files:
        if count == limits.files:
            left_out.add(path, f"more than {limits.files} files")
        elif total_bytes + inode.size_bytes > limits.bytes:
            left_out.add(path, f"with its {inode.size_bytes} bytes more than {limits.bytes} in all")
        elif inode.number in checked or not (why := _unreadable(image, inode)):
            checked.add(inode.number)
            count, total_bytes = count + 1, total_bytes + inode.size_bytes
            yield name, path, inode
        else:
            left_out.add(path, why)


def _unreadable(image: extfs.Image, inode: extfs.Inode) -> str:
    """Why a file can't be read; empty if it can."""
    try:
        image.check(inode)
    except ConstruirError as error:
        return str(error)
    return ""


def _printable(text: str, most: int = _PATH_CHARACTERS) -> str:
    text = ascii(text)[1:-1]
    return text if len(text) <= most else text[:most] + "..."


if __name__ == "__main__":
    main()
