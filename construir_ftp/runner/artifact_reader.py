"""The reader of artifacts: a program in a jail that finds them in a job's image, and passes on what is in them.

    construir_ftp.runner.artifact_reader ASKED     standard input is the image; for the output see outputs.Found and End

Each message is a line of JSON; after a Found come its bytes. An image that is damaged ends the output early, and what
is wrong is said on standard error.
"""

import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator

import msgspec

from construir_ftp.diskimage import extfs, tree
from construir_ftp.errors import ConstruirError
from construir_ftp.jobs import outputs
from construir_ftp.jobs.outputs import MOST_SAYINGS, Allowance, Asked, End, Found, Patterns

_PATH_CHARACTERS = 200
_KINDS = {stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def main() -> None:
    """Write all of it to standard output."""
    asked = msgspec.json.decode(sys.argv[1], type=Asked)
    try:
        with open(0, "rb", closefd=False) as disk, open(1, "wb", closefd=False) as wire:
            for piece in pick(extfs.Image(disk), asked):
                wire.write(piece)
    except ConstruirError as error:
        raise SystemExit(str(error)) from error
    except MemoryError as error:
        raise SystemExit("to look through the image takes more memory than is given here") from error


def pick(image: extfs.Image, asked: Asked) -> Iterator[bytes]:
    """The output, in pieces. Raises ConstruirError where the image is damaged."""
    left_out: list[str] = []
    files = _files(image, Patterns(asked.patterns), left_out)
    sent: dict[int, str] = {}
    for name, path, inode in _within(asked.limits, _named(files, left_out), left_out):
        like = sent.get(inode.number)
        yield _line(Found(name=name, path=_printable(path), bytes=inode.size_bytes, like=like))
        if like is None:
            yield from image.stream(inode)
            sent[inode.number] = name
    if len(left_out) > MOST_SAYINGS:
        left_out[MOST_SAYINGS - 1 :] = [f"and {len(left_out) - MOST_SAYINGS + 1} more"]
    yield _line(End(left_out))


def _line(message: Found | End) -> bytes:
    return msgspec.json.encode(message) + b"\n"


_File = tuple[str, extfs.Inode]


def _files(image: extfs.Image, patterns: Patterns, left_out: list[str]) -> list[_File]:
    """All regular files that a pattern matches, by their paths; what else matches is left out."""
    found, unmatched = [], set(range(len(patterns.patterns)))
    for raw, inode in tree.walk(image, image.inode(extfs.ROOT), lambda path: patterns.enters(os.fsdecode(path))):
        path = os.fsdecode(raw)
        if inode.kind != stat.S_IFDIR and (matched := patterns.matched(path)):
            unmatched.difference_update(matched)
            if inode.kind == stat.S_IFREG:
                found.append((path, inode))
            else:
                left_out.append(f"{_printable(path)}: {_KINDS.get(inode.kind, 'a device')}, and no file")
    left_out += [f"{_printable(patterns.patterns[number])}: matches no file" for number in sorted(unmatched)]
    return sorted(found, key=lambda file: file[0])


def _named(files: list[_File], left_out: list[str]) -> Iterator[tuple[str, str, extfs.Inode]]:
    """Each file's name as an artifact: its own, or its path with _ for / where several have that one."""
    having = Counter(_base(path) for path, _ in files)
    taken = set()
    for path, inode in files:
        own = _base(path)
        name = own if having[own] == 1 else path.replace("/", "_")
        if not outputs.is_name(name):
            left_out.append(f"{_printable(path)}: an artifact can't be called that")
        elif name in taken:
            left_out.append(f"{_printable(path)}: another artifact is called {name}")
        else:
            taken.add(name)
            yield name, path, inode


def _base(path: str) -> str:
    return path.rpartition("/")[2]


def _within(
    limits: Allowance, files: Iterator[tuple[str, str, extfs.Inode]], left_out: list[str]
) -> Iterator[tuple[str, str, extfs.Inode]]:
    """As many as the limits allow, the first ones first."""
    count = total_bytes = 0
    for name, path, inode in files:
        if count == limits.files:
            left_out.append(f"{_printable(path)}: more than {limits.files} files")
        elif total_bytes + inode.size_bytes > limits.bytes:
            left_out.append(f"{_printable(path)}: with its {inode.size_bytes} bytes more than {limits.bytes} in all")
        else:
            count, total_bytes = count + 1, total_bytes + inode.size_bytes
            yield name, path, inode


def _printable(path: str) -> str:
    text = ascii(path)[1:-1]
    return text if len(text) <= _PATH_CHARACTERS else text[:_PATH_CHARACTERS] + "..."


if __name__ == "__main__":
    main()
