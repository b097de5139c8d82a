"""A job that does nothing: done first so that the real one finds a machine warm, or to show that a machine works."""

import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from construir_ftp import process

_RUN_SH = "#!/bin/sh\necho rehearsed\n"
_DISK_BYTES = 2**20
_TIMEOUT_S = 30.0


@functools.cache
def _content() -> bytes:
    """The disk of a job that does nothing."""
    with tempfile.TemporaryDirectory(prefix="construir-rehearsal-") as name:
        job, image = Path(name) / "job", Path(name) / "disk.img"
        job.mkdir()
        (job / "run.sh").write_text(_RUN_SH)
        (job / "run.sh").chmod(0o755)
        argv: list[str | Path] = ["mke2fs", "-q", "-t", "ext2", "-d", job, image, str(_DISK_BYTES // 1024)]
        process.run(argv, timeout_s=_TIMEOUT_S)
        return image.read_bytes()


@contextmanager
def disk() -> Iterator[int]:
    """A fresh one, in memory: the machine keeps what it needs of it."""
    descriptor = os.memfd_create("rehearsal", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, _content())
        yield descriptor
    finally:
        os.close(descriptor)
