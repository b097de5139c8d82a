"""What dput and dupload send after the files themselves: a list of them, NAME.changes (deb-changes(5)).

Of a Debian source it makes a job: see source_upload. Of jobs it is none itself: it is compared with what the session
has sent before it, and then deleted. These programs go on after some refusals as if nothing had been wrong, so that
this is where they have to be told.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from construir_ftp.errors import RefusedError
from construir_ftp.jobs import source_package
from construir_ftp.jobs.reply import Reply

_MOST_BYTES = source_package.MOST_BYTES
_DEBIAN = (".dsc", ".deb", ".udeb", ".ddeb", ".buildinfo")
# Of the fields Files (MD5) and Checksums-*, each line after the first: digest, size, for Files two more words, name.
_FILE = re.compile(
    r"^ (?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}) ([0-9]{1,18})(?: \S+ \S+)? (\S{1,200})$", re.MULTILINE
)


def is_named(name: str) -> bool:
    """Whether a file of this name is such a list."""
    return name.endswith(".changes")


def names_source(path: Path) -> bool:
    """Whether it is of a Debian package."""
    return any(name.endswith(_DEBIAN) for name in _listed(path))


def _listed(path: Path) -> dict[str, int]:
    """The files that a list names, with their sizes in bytes; none if it is longer than any is."""
    with path.open("rb") as file:
        text = file.read(_MOST_BYTES + 1)
    found = _FILE.findall(text.decode(errors="replace")) if len(text) <= _MOST_BYTES else ()
    return {name: int(size) for size, name in found}


def compare(path: Path, sent: Mapping[str, int]) -> Reply:
    """The reply to the list at `path`, after what was `sent` (size in bytes by name). Raises RefusedError.

    That it is no more than text is not relied upon: nothing is done with it but look for the lines above.
    """
    listed = _listed(path)
    if not listed:
        raise RefusedError("it names no files; a job has to have another name than .changes")
    for name, size_bytes in listed.items():
        if sent.get(name) != size_bytes:
            raise RefusedError(f"{name}, which it names, was not accepted in this session")
    return Reply(226, f"Accepted: so were all files that it names ({len(listed)}).")
