"""The files that a job names in `outputs`, put into its result as they are, so that a plain FTP client can fetch them.

    artifacts/NAME     in the job's directory; never a directory, a link or anything special

They are found and read by artifact_reader, in a jail. Here its words are checked like any other hostile input, and the
files are written. An artifact that can't be had fails no job: the image has it still, and the result says what is left
out.
"""

import hashlib
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from construir_ftp import files
from construir_ftp.config import ArtifactsSection
from construir_ftp.diskimage import e2fsprogs
from construir_ftp.errors import CommandError, ConstruirError
from construir_ftp.jail import cell, tools
from construir_ftp.jail.tools import Tool
from construir_ftp.jobs import outputs
from construir_ftp.jobs.outputs import SAYING_CHARACTERS, Allowance, Asked, End, Found
from construir_ftp.jobs.result import Artifact

log = logging.getLogger(__name__)

# Python, and what is remembered of some hundred thousand files.
_MEMORY_BYTES = 512 * 2**20
_LINE_BYTES = 256 * 1024
_NONSENSE = "the reader of the image did not say what was asked for"


class Artifacts(msgspec.Struct, frozen=True):
    """What was taken of a job, and what was left out, in words."""

    files: tuple[Artifact, ...] = ()
    left_out: tuple[str, ...] = ()


def take(image: Path, patterns: tuple[str, ...], target: Path, limits: ArtifactsSection) -> Artifacts:
    """Put what the patterns match in `image`, a job's disk, into the directory `target`, which is made anew.

    The image is mended where a machine left it unclean. Raises OSError if the files can't be written.
    """
    with suppress(FileNotFoundError):
        files.remove(target)
    if not patterns:
        return Artifacts()
    target.mkdir()
    written: list[Artifact] = []
    asked = Asked(patterns, Allowance(limits.max_files, int(limits.max_total)))
    try:
        e2fsprogs.repair(image)
        left_out = tuple(_receive(image, asked, limits.timeout, target, written).left_out)
    except ConstruirError as error:
        log.warning("%s: artifacts were left out: %s", image.parent.name, error)
        left_out = (_printable(f"looking for artifacts came to an end: {error}"),)
    if not written:
        target.rmdir()
    return Artifacts(tuple(written), left_out)


def _receive(image: Path, asked: Asked, timeout_s: float, target: Path, written: list[Artifact]) -> End:
    """Write what the reader finds, and add it to `written`. Raises ConstruirError if it does not come to its end."""
    left = asked.limits
    with _reading(image, asked, timeout_s) as reader:
        while isinstance(said := _message(reader), Found):
            left = Allowance(left.files - 1, left.bytes - said.bytes)
            if left.files < 0 or left.bytes < 0:
                raise ConstruirError(_NONSENSE)
            written.append(_write(said, reader, target, written))
        return said


@contextmanager
def _reading(image: Path, asked: Asked, timeout_s: float) -> Iterator[Tool]:
    walls = cell.reader(memory_bytes=_MEMORY_BYTES, cpu_s=timeout_s, readable=cell.python())
    argv = [sys.executable, "-I", "-m", "construir_ftp.runner.artifact_reader", msgspec.json.encode(asked).decode()]
    with image.open("rb") as file, tools.start(walls, argv, timeout_s, stdin=file) as reader:
        try:
            yield reader
        except EOFError as short:
            raise ConstruirError(_why(reader, timeout_s)) from short


def _message(reader: Tool) -> Found | End:
    """Raises EOFError where there is none, and ConstruirError where it is nonsense."""
    line = reader.stdout.readline(_LINE_BYTES)
    if not line:
        raise EOFError
    try:
        return outputs.decode(line)
    except msgspec.MsgspecError as error:
        raise ConstruirError(_NONSENSE) from error


def _write(said: Found, reader: Tool, target: Path, written: list[Artifact]) -> Artifact:
    path = target / said.name
    twin = next((file for file in written if file.name == said.like), None)
    if path.exists() or (said.like and (twin is None or twin.bytes != said.bytes)):
        raise ConstruirError(_NONSENSE)
    if twin:
        path.hardlink_to(target / twin.name)
        return msgspec.structs.replace(twin, name=said.name, path=said.path)
    try:
        files.write_sparse(reader.stdout, path, said.bytes)
    except EOFError:
        path.unlink()
        raise
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Artifact(said.name, said.path, said.bytes, digest, said.executable)


def _why(reader: Tool, timeout_s: float) -> str:
    """Why a reader that has closed its output came to no end."""
    try:
        ended = reader.end()
    except CommandError:
        return f"not done after {timeout_s:g} s"
    return ended.words.rpartition("\n")[2] or f"exit status {ended.status}"


def _printable(text: str) -> str:
    return ascii(text)[1:-1][:SAYING_CHARACTERS]
