"""The program that a job runs, as its image has it: there, fit to be executed, and what it needs to be.

For the judge, which has the image. What the program needs of the machine's root is said, and looked for by
base_programs. Where the image is damaged nothing is said here: that is the machine's to find.

Sources: Linux, fs/binfmt_script.c and fs/binfmt_elf.c; env(1).
"""

import re
import stat
import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple

from construir_ftp.diskimage import extfs, paths
from construir_ftp.diskimage.ext_inodes import Flag
from construir_ftp.diskimage.extfs import Image, Inode
from construir_ftp.diskimage.paths import Elsewhere
from construir_ftp.errors import RefusedError
from construir_ftp.jobs.request import Wishes

# What the kernel reads of a script's first line (BINPRM_BUF_SIZE).
_LINE_BYTES = 256
_MOST_OTHERS = 100
_PLAIN = re.compile(rb"[A-Za-z0-9_][A-Za-z0-9._+-]{0,60}")
_PRINTABLE = re.compile(rb"[!-~]{1,200}")
_ANEW = "and make the image anew"


class Need(NamedTuple):
    """What has to be in the machine's root: an absolute path, or the name of a program on PATH; and what it is for.

    `is_beside` is true of a path that the image has in its own root, which is /job in the machine.
    """

    what: str
    role: Literal["interpreter", "loader", "target"]
    is_beside: bool = False


def look(image: Image, wanted: Wishes) -> Need | None:
    """What the program needs of the machine's root, if anything. Raises RefusedError where it can't be run.

    Raises ConstruirError where the image is damaged.
    """
    name = wanted.run.removeprefix("./")
    found = _find_program(image, name)
    if isinstance(found, Elsewhere):
        return _need(image, found.path, "target")
    if found.kind == stat.S_IFDIR:
        raise RefusedError(f"{name} is a directory; the program to run has to be a file")
    if found.kind != stat.S_IFREG:
        raise RefusedError(f"{name} is no file; the program to run has to be one")
    if not found.mode & 0o111:
        raise RefusedError(f"{name} is not executable; run: chmod +x {name}, {_ANEW}")
    return _look_inside(image, name, _begin(image, found), "PATH" in wanted.env)


def _need(image: Image, path: bytes, role: Literal["interpreter", "loader", "target"]) -> Need | None:
    if not _PRINTABLE.fullmatch(path):
        return None
    beside = paths.follow(image, b"/job" + path) if path.startswith(b"/") else None
    return Need(path.decode(), role, isinstance(beside, Inode) and beside.kind == stat.S_IFREG)


# -- where it is -------------------------------------------------------------------------------------------------


def _find_program(image: Image, name: str) -> Inode | Elsewhere:
    """What is run. Raises RefusedError if it is not there, which says what is there instead, and what to do."""
    root = image.inode(extfs.ROOT)
    if "/" in name or root.flags & Flag.CASEFOLD:
        found = paths.follow(image, b"/job/" + name.encode())
        if found is None:
            raise RefusedError(f"there is no {name} in the image; make it anew, with what is to be run")
        return found
    scan = _Scan(image, root, name.encode())
    if scan.found is None:
        raise RefusedError(f"there is no {name} at the root of the image" + _elsewhere(image, name, scan))
    if scan.found.kind != stat.S_IFLNK:
        return scan.found
    target = paths.follow(image, b"/job/" + name.encode())
    if target is None:
        raise RefusedError(f"{name} is a link that leads nowhere; put the file in its place, {_ANEW}")
    return target


class _Scan:
    """The root directory, read once, until a name is found; without it what was seen on the way."""

    def __init__(self, image: Image, root: Inode, wanted: bytes) -> None:
        self.found: Inode | None = None
        self.alike = b""
        self.others: list[tuple[bytes, int]] = []
        alike = (wanted.lower(), wanted.lower() + b".txt", wanted.lower().removesuffix(b".sh"))
        for name, number in image.entries_by_place(root, wanted):
            if name == wanted:
                self.found = image.named(number)
                return
            if name.lower() in alike:
                self.alike = name
            elif len(self.others) < _MOST_OTHERS and name != b"lost+found":
                self.others.append((name, number))


def _elsewhere(image: Image, name: str, scan: _Scan) -> str:
    if scan.alike:
        return f", but {_quoted(scan.alike)}; rename it to {name}, {_ANEW}"
    for other, number in scan.others:
        inode = image.inode(number)
        if inode.kind == stat.S_IFDIR and image.lookup(inode, name.encode()) is not None:
            other_name = _quoted(other)
            return f", but one in {other_name}/; make the image of that directory: construir pack {other_name}"
    return "; write one, and make the image anew with: construir pack DIR"


def _quoted(name: bytes) -> str:
    return name.decode() if _PLAIN.fullmatch(name) else "DIR"


# -- what it is --------------------------------------------------------------------------------------------------


def _begin(image: Image, inode: Inode) -> bytes:
    """How a file begins; empty where that is a hole."""
    offset, data = next(image.content(inode), (0, b""))
    return b"" if offset else data


def check_text(name: str, begin: bytes) -> None:
    """Raise RefusedError where a program that begins so is text of another system, which no shell takes."""
    line = begin.partition(b"\n")[0]
    is_script = line.startswith(b"#!")
    if begin.startswith(b"\xef\xbb\xbf#!"):
        raise RefusedError(f"{name} begins with a byte order mark, not with #!; save it without, {_ANEW}")
    if begin.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise RefusedError(f"{name} is UTF-16 text; save it as UTF-8, {_ANEW}")
    if b"\r" in line if is_script else b"\0" not in line and line.endswith(b"\r"):
        if b"\r" in line[:-1]:
            raise RefusedError(
                f"the lines of {name} end in carriage returns alone, as on old Macs;"
                f" run: sed -i 's/\\r/\\n/g' {name}, {_ANEW}"
            )
        raise RefusedError(
            f"the first line of {name} ends in a carriage return, as lines do on Windows;"
            f" run: sed -i 's/\\r$//' {name}, {_ANEW}"
        )


def _look_inside(image: Image, name: str, begin: bytes, is_path_set: bool) -> Need | None:
    check_text(name, begin)
    line = begin.partition(b"\n")[0]
    if line.startswith(b"#!"):
        return _interpreter(image, name, line[2:_LINE_BYTES].strip(b" \t"), is_path_set)
    if begin.startswith(b"\x7fELF"):
        loader = next(_loaders(begin), b"")
        return _find(image, name, loader, "loader") if loader else None
    return None  # by the shell


def _interpreter(image: Image, name: str, line: bytes, is_path_set: bool) -> Need | None:
    path, *arguments = re.split(rb"[ \t\0]+", line)
    if not path:
        return None  # by the shell
    if path not in (b"/usr/bin/env", b"/bin/env"):
        return _find(image, name, path, "interpreter")
    arguments = arguments[1:] if arguments[:1] == [b"-S"] else arguments
    while arguments and b"=" in arguments[0]:
        is_path_set = is_path_set or arguments[0].startswith(b"PATH=")
        arguments = arguments[1:]
    if not arguments or not _PLAIN.fullmatch(arguments[0]) or is_path_set:
        return None  # who knows
    own = paths.follow(image, b"/job/bin/" + arguments[0])
    return None if own is not None else _need(image, arguments[0], "interpreter")


def _find(image: Image, name: str, path: bytes, role: Literal["interpreter", "loader"]) -> Need | None:
    """Look for what a program is run by. Raises RefusedError if it is said to be in the image, and isn't."""
    shown = ascii(path.decode(errors="replace"))[1:-1][:80]
    found = paths.follow(image, path if path.startswith(b"/") else b"/job/" + path)
    if isinstance(found, Elsewhere):
        return _need(image, found.path, role)
    if found is None:
        raise RefusedError(f"{name} is run by {shown}, which is not in the image")
    if found.kind != stat.S_IFREG or not found.mode & 0o111:
        raise RefusedError(f"{name} is run by {shown}, which is no executable file")
    return None


def _loaders(begin: bytes) -> Iterator[bytes]:
    """The path in an ELF file's PT_INTERP, as far as that is in its beginning (elf(5))."""
    if len(begin) < 64 or begin[4] != 2 or begin[5] != 1:  # 64 bits, little-endian
        return
    (table,), (entry_bytes, count) = struct.unpack_from("<Q", begin, 32), struct.unpack_from("<HH", begin, 54)
    for start in range(table, table + entry_bytes * min(count, 64), entry_bytes or 1):
        if start + 56 > len(begin):
            return
        kind, offset, size_bytes = struct.unpack_from("<I4xQ16xQ", begin, start)
        if kind == 3:
            yield begin[offset : offset + size_bytes].rstrip(b"\0")
