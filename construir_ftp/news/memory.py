"""What was told, and what waits to be told: one file, replaced in one step.

    <spool>/news.json   which results are known, which conditions last, how often parts were started again, the boxes

What is in it was seen; what is in no box any more was told. A crash between a message and the file tells it again.
"""

import logging
from pathlib import Path

import msgspec

from construir_ftp import files, schema
from construir_ftp.jobs.result import Moment
from construir_ftp.news.boxes import Box
from construir_ftp.news.events import Kind

log = logging.getLogger("construir.news")

FILE = "news.json"
_OURS = 0o600


class Lasting(msgspec.Struct, frozen=True):
    """A condition that was told. `seen` is when it was last there."""

    kind: Kind
    seen: Moment


class Memory(msgspec.Struct, kw_only=True):
    """news.json. Conditions are by their subjects, boxes by their recipients. `results` is None where nobody has looked
    yet: what is there then is no news.
    """

    version: int = 1
    results: set[str] | None = None
    conditions: dict[str, Lasting] = {}
    crashes: dict[str, int] | None = None
    boxes: dict[str, Box] = {}


def load(spool: Path) -> Memory:
    """What is remembered; nothing, where there is no file. One that is damaged is told of in the log, and forgotten."""
    try:
        return schema.from_json((spool / FILE).read_bytes(), Memory)
    except FileNotFoundError:
        return Memory()
    except msgspec.MsgspecError as error:
        log.error("%s can't be read, and begins anew: %s", spool / FILE, error)  # noqa: TRY400 - the message says it all
        return Memory()


def save(spool: Path, memory: Memory) -> None:
    """Remember; on return it survives a power cut. Raises OSError."""
    files.replace_durably(spool / FILE, msgspec.json.encode(memory), _OURS)
