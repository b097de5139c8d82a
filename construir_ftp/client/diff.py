"""What two runs left differently: how they ended, how long they took, what they printed, the files of their images.

The images come from jobs: they are unpacked in a jail, and read without being mounted.
"""

import difflib
import itertools
from pathlib import Path

import msgspec

from construir_ftp.client import fetch
from construir_ftp.diskimage.compare import Difference, compare_images
from construir_ftp.errors import AnswerError, MissingError, one_line
from construir_ftp.jobs.result import Result

OUTPUT, RESULT = "output.log", "result.json"

_TIMEOUT_S = 2 * 3600
_MOST_LINES = 200
# What a run takes, and the digest of its upload: the same files may be packed at another time, or by another tool.
_VARYING = ("took", "sent")


class Fact(msgspec.Struct, frozen=True):
    """Something that the results say of the runs, differently."""

    what: str
    old: str
    new: str


class Contrast(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `output` is a unified diff, without ends of lines, and may be cut, which `output_is_cut` says.

    `touched` counts the files that differ in nothing but their time; `files_unknown` says why none were compared.
    """

    facts: list[Fact]
    output: list[str]
    output_is_cut: bool
    files: list[Difference]
    touched: int = 0
    files_unknown: str = ""

    def is_same(self) -> bool:
        """Whether nothing differs but what differs between any two runs."""
        facts = [fact for fact in self.facts if fact.what not in _VARYING]
        return not (facts or self.output or self.files or self.files_unknown)


class Side(msgspec.Struct, frozen=True):
    """A run: what its result says, and the directory that its files were brought to."""

    ended: Result
    directory: Path

    def output(self) -> list[str]:
        """What it printed, line by line; nothing if there is no log."""
        path = self.directory / OUTPUT
        return path.read_text(errors="replace").splitlines() if path.exists() else []


def here(result: Path, place: Path) -> Side:
    """A run whose result is in a directory here; what is made of it goes to `place`. Raises MissingError."""
    if not (result / RESULT).is_file():
        raise MissingError(
            f"{one_line(str(result))} is no result: it has no {RESULT}; other directories are compared by: diff -r"
        )
    # Imported here: contributors need nothing of what an appliance is made of.
    from construir_ftp.jobs.job import Job, read_result

    ended = read_result(Job(result))
    place.mkdir()
    for name in filter(None, (OUTPUT, ended.image)):
        if name != Path(name).name or not (result / name).is_file():
            raise MissingError(f"{one_line(str(result))} lacks {one_line(name)}; bring it: construir fetch {ended.id}")
        (place / name).symlink_to((result / name).absolute())
    return Side(ended, place)


def compare(old: Side, new: Side) -> Contrast:
    """The differences. Raises ConstruirError where an image can't be unpacked, or is none that can be read."""
    diff = difflib.unified_diff(old.output(), new.output(), old.ended.id, new.ended.id, lineterm="", n=2)
    lines = list(itertools.islice(diff, _MOST_LINES + 1))
    unknown = _why_not_compared(old.ended, new.ended)
    files = [] if unknown else compare_images(_unpacked(old), _unpacked(new))
    changed = [file for file in files if file.fields() != ["modified_ns"]]
    return Contrast(
        facts=_facts(old.ended, new.ended),
        output=lines[:_MOST_LINES],
        output_is_cut=len(lines) > _MOST_LINES,
        files=changed,
        touched=len(files) - len(changed),
        files_unknown=unknown,
    )


def _facts(old: Result, new: Result) -> list[Fact]:
    pairs = zip(_told(old), _told(new), strict=True)
    return [Fact(what, before, after) for (what, before), (_, after) in pairs if before != after]


def _told(ended: Result) -> list[tuple[str, str]]:
    took = f"{(ended.ended - ended.started).total_seconds():.1f} s" if ended.started and ended.ended else "never ran"
    base = f"{ended.base_image.name} {ended.base_image.digest}" if ended.base_image else "none"
    layers = ", ".join(layer.name for layer in ended.used.layers) if ended.used else ""
    return [
        ("status", ended.status),
        ("exit code", "none" if ended.exit_code is None else str(ended.exit_code)),
        ("reason", ended.reason),
        ("took", took),
        ("sent", ended.upload_sha256),
        ("base image", base),
        ("layers", layers),
        ("accelerator", ended.accelerator or "none"),
    ]


def _why_not_compared(*sides: Result) -> str:
    for ended in sides:
        if ended.image is None:
            return f"{ended.id} has no image"
        if not ended.filesystem.startswith("ext"):
            return f"{ended.id} is {one_line(ended.filesystem)}, which isn't read without mounting"
    try:
        from construir_ftp.diskimage import codec, e2fsprogs  # noqa: F401 - needed below
    except ImportError as missing:
        return f"{missing.name} is not installed here, which unpacking needs"
    return ""


def _unpacked(side: Side) -> Path:
    """The run's image as it is on a disk, beside the packed one."""
    # Imported here: these need a jail, and programs that whoever only sends jobs need not have.
    from construir_ftp.diskimage import codec, e2fsprogs

    assert side.ended.image is not None
    packed, image = side.directory / side.ended.image, side.directory / ".unpacked"
    codec.unpack(side.ended.codec, packed, image, side.ended.image_bytes, _TIMEOUT_S)
    e2fsprogs.repair(image)
    return image


def wanted(items: list[fetch.Item], ended: Result) -> list[fetch.Item]:
    """What of a result has to be brought to be compared. Raises AnswerError where its image is none of its files."""
    if ended.image is not None and ended.image not in {item.name for item in items}:
        raise AnswerError(f"the result of {ended.id} lacks its image, {one_line(ended.image)}")
    return [item for item in items if item.name in (OUTPUT, ended.image)]
