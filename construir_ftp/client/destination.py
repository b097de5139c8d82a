"""The directory that a result is brought into: it holds the result of one job, as its result.json says."""

from contextlib import suppress
from pathlib import Path

import msgspec

from construir_ftp import schema
from construir_ftp.errors import UsageError, one_line, plainly
from construir_ftp.jobs.result import RESULT, Result, decode

_SHOWN_CHARACTERS = 80


class _Owner(msgspec.Struct):
    """Of a result.json: whose result it is."""

    id: str = ""


def owner(directory: Path) -> str:
    """The id of the job whose result is in this directory; empty where there is none that says so."""
    path = directory / RESULT
    with plainly(path):
        content = path.read_bytes() if path.is_file() else b""
    try:
        return schema.from_json(content, _Owner).id
    except msgspec.MsgspecError:
        return ""


def result(directory: Path) -> Result:
    """What its result.json says; nothing of one that can't be read."""
    with suppress(OSError, msgspec.MsgspecError):
        return decode((directory / RESULT).read_bytes())
    return Result(status="")


def demand_empty(directory: Path) -> None:
    """Raises UsageError if a result is in the directory: that of a job which has no id yet can't be brought there."""
    if other := owner(directory):
        raise UsageError(f"nothing is sent: {_held(directory, other)}; name another place: --fetch DIR")


def demand_own(directory: Path, job_id: str) -> None:
    """Raises UsageError if the result of another job is in the directory, since the files of both would be mixed."""
    if (other := owner(directory)) not in ("", job_id):
        raise UsageError(f"{_held(directory, other)}; name another place: construir fetch {job_id} -o DIR")


def _held(directory: Path, other: str) -> str:
    return f"{directory} holds the result of {one_line(other)[:_SHOWN_CHARACTERS]}"
