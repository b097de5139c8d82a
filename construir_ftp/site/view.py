"""What a page shows of a result: its files in order, what each is, what became of it in words.

It reads a result's directory, and follows no symbolic link in it.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from construir_ftp.jobs import result as names
from construir_ftp.jobs.result import Result
from construir_ftp.site import live, words

_LOG_BYTES = 16 * 1024
_LOG_LINES = 120
# A contributor's name as the users file has it, and so that of a page; any other is no name of a page.
_CONTRIBUTOR = re.compile(r"[a-z_][a-z0-9_-]{0,31}")

# What a status means, and how it is marked.
STATUSES = {
    "success": ("Success", "good"),
    "failed": ("Failed", "bad"),
    "timeout": ("Timed out", "bad"),
    "idle-timeout": ("Fell silent", "bad"),
    "no-result": ("No result", "bad"),
    "dependency-failed": ("Dependency failed", "bad"),
    "cancelled": ("Cancelled", "quiet"),
    "lost": ("Lost", "bad"),
}

_WHAT = {
    names.OUTPUT: "what run.sh printed",
    names.CONSOLE: "what the machine said: its kernel and its start",
    names.INSTALL: "what was said while packages were installed",
    names.WISHES: "what the job asked for, as it was understood",
    "job.json": "what was known of the upload when it was admitted",
    names.SUMS: "the digests of all files",
    "result.json": "all of this page, for programs",
    "provenance.intoto.jsonl": "what it was made of, signed",
    "SHA256SUMS.sig": "the signature of SHA256SUMS",
}


class File(NamedTuple):
    """A file of a result; `href` is its address, from the result's directory on."""

    name: str
    href: str
    bytes: int
    what: str = ""
    sha256: str = ""


def status(word: str) -> tuple[str, str]:
    """In words, and its mark; of a status of a later version the word itself."""
    return STATUSES.get(word, (word, "bad"))


def page_of(contributor: str) -> str:
    """The name of a contributor's page, without a suffix; empty if the name is none that a page can have."""
    return contributor if _CONTRIBUTOR.fullmatch(contributor) else ""


def segment(name: str) -> str:
    """A name as one step of an address; those that lead elsewhere (RFC 3986, 5.2.4) are none that a file can have."""
    return quote(os.fsencode(name), safe="") if name not in ("", ".", "..") else "-"


def artifacts(result: Result) -> list[File]:
    """The files that the job named."""
    return [
        File(one.path or one.name, f"{names.ARTIFACTS}/{segment(one.name)}", one.bytes, sha256=one.sha256)
        for one in result.artifacts
    ]


def files(directory: Path, result: Result) -> list[File]:
    """The other files of a result: the image first, then what explains it."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            seen = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(seen.st_mode) and not entry.name.startswith("."):
                what = "the job's disk, as it left it" if entry.name == result.image else _WHAT.get(entry.name, "")
                found.append(File(entry.name, segment(entry.name), seen.st_size, what))
    return sorted(found, key=lambda file: (file.name != result.image, file.name)) + list(_uploaded(directory))


def _uploaded(directory: Path) -> Iterator[File]:
    place = directory / names.UPLOADED
    if place.is_symlink() or not place.is_dir():
        return
    for path in sorted(place.iterdir()):
        if stat.S_ISREG((seen := path.lstat()).st_mode):
            href = f"{names.UPLOADED}/{segment(path.name)}"
            yield File(f"{names.UPLOADED}/{path.name}", href, seen.st_size, "what was uploaded")


class LogEnd(NamedTuple):
    """The end of a log, and whether that is all of it."""

    name: str
    text: str
    bytes: int
    is_whole: bool


def log_end(directory: Path) -> LogEnd | None:
    """Of what the job printed; of what was said of its packages where it never ran; None where there is neither."""
    for name in (names.OUTPUT, names.INSTALL):
        content, size_bytes = live.end_of(directory / name, _LOG_BYTES)
        if size_bytes:
            lines = words.log_text(content).rstrip("\n").split("\n")
            is_whole = len(content) == size_bytes and len(lines) <= _LOG_LINES
            return LogEnd(name, "\n".join(lines[-_LOG_LINES:]), size_bytes, is_whole)
    return None
