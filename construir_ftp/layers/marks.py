"""What overlayfs keeps in extended attributes of a directory: that it was renamed, or that it hides what is below it.

Debian's user-mode kernel reads no extended attributes of a squashfs (its CONFIG_SQUASHFS_XATTR is not set). A layer
that needs them would show another tree there, without a word; so none is made for it (docs/machines.md).
"""

import re
from collections.abc import Callable, Iterator

from construir_ftp.errors import ConstruirError, one_line

_BLOCK_BYTES = 512
_PAX = ord("x")
# A longer header than tar writes for the names and attributes of one file is not looked into.
_MOST_HEADER_BYTES = 2**20
# pax(1), extended header records; tar --xattrs has attributes in SCHILY.xattr.
_PATH = re.compile(rb"(?:^|\n)\d+ path=([^\n]*)\n")
_RENAMED = b" SCHILY.xattr.trusted.overlay.redirect="
_OPAQUE = b" SCHILY.xattr.trusted.overlay.opaque="
_WHY = "a user-mode machine would not see that; on a base image without a user-mode kernel it works"


def demand_none_needed(pieces: Iterator[bytes], is_below: Callable[[bytes], bool]) -> Iterator[bytes]:
    """The pieces of a tar file as they are. Raises ConstruirError where it needs such an attribute to be read.

    `is_below` says whether there is a directory of that path, without a slash at its begin, that one may hide. What is
    no tar file passes: it is for others to refuse. Not by tarfile, which takes a header of any length into memory.
    """
    held, skip, header = bytearray(), 0, b""
    for piece in pieces:
        held += piece
        while held:
            if skip:
                passed = min(skip, len(held))
                del held[:passed]
                skip -= passed
                continue
            if len(held) < _BLOCK_BYTES:
                break
            block, size = bytes(held[:_BLOCK_BYTES]), _size_bytes(held)
            padded = -(-size // _BLOCK_BYTES) * _BLOCK_BYTES
            if block[156] == _PAX and size <= _MOST_HEADER_BYTES:
                if len(held) < _BLOCK_BYTES + padded:
                    break
                header = bytes(held[_BLOCK_BYTES : _BLOCK_BYTES + size])
            elif header:
                _look(header, block, is_below)
                header = b""
            skip = _BLOCK_BYTES + padded
        yield piece


def _size_bytes(header: bytearray) -> int:
    try:
        return int(header[124:136].rstrip(b" \0") or b"0", 8)
    except ValueError:  # in binary, for what is larger than 8 GiB
        return int.from_bytes(header[125:136], "big")


def _look(header: bytes, block: bytes, is_below: Callable[[bytes], bool]) -> None:
    told = _PATH.search(header)
    path = (told[1] if told else block[:100].rstrip(b"\0")).rstrip(b"/")
    if _RENAMED in header:
        raise ConstruirError(f"they rename a directory of the base image, to {_shown(path)}; {_WHY}")
    if _OPAQUE in header and is_below(path):
        raise ConstruirError(f"they replace a directory of the base image, {_shown(path)}; {_WHY}")


def _shown(path: bytes) -> str:
    return one_line(f"/{path.decode(errors='replace')}")[:200]
