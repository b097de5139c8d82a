"""Jobs that can be told apart: each has a token, says it, and leaves it in its image.

What a job says and leaves is not what stands in its run.sh: `said:TOKEN` and `left:TOKEN` are there only once it has
run.
"""

import bz2
import functools
import gzip
import lzma
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import lz4.frame

from tests.support import images

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_BLANK = b"@" * 32
_SAYS = b'#!/bin/sh\nt=%s\necho "said:$t"\necho "left:$t" >left\nsync\n' % _BLANK


class Kind(NamedTuple):
    """What a job does, and how it ends when nothing comes between."""

    name: str
    run_sh: bytes
    status: str


KINDS = {
    kind.name: kind
    for kind in (
        Kind("works", _SAYS, "success"),
        Kind("fails", _SAYS + b"exit 3\n", "failed"),
        Kind("powers-off", _SAYS + b"exec busybox poweroff -f\n", "no-result"),
        Kind("floods", _SAYS + b"yes | head -c 1000000\n", "success"),
        Kind("fills-disk", _SAYS + b"cat /dev/zero >zeros\nexit 0\n", "success"),
    )
}
CODECS = ("raw", "gzip", "bzip2", "xz", "zstd", "lz4")
_UNPACK: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ": lzma.decompress,
    b"\x28\xb5\x2f\xfd": zstd.decompress,
    b"\x04\x22\x4d\x18": lz4.frame.decompress,
}


@functools.cache
def _blank_image(kind: str) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        source = images.job_directory(Path(directory) / "job", KINDS[kind].run_sh)
        return images.of_directory(source, Path(directory) / "image", images.MIB).read_bytes()


def job(kind: str, codec: str, token: str) -> bytes:
    """An upload of this kind. A token is 32 characters."""
    return images.pack(codec, _blank_image(kind).replace(_BLANK, token.encode()))


def said(token: str) -> bytes:
    """What it prints."""
    return f"said:{token}\n".encode()


def left(token: str) -> bytes:
    """What is in its image once it has run."""
    return f"left:{token}\n".encode()


def unpacked(content: bytes) -> bytes:
    """An image that may be compressed."""
    return next((unpack(content) for magic, unpack in _UNPACK.items() if content.startswith(magic)), content)
