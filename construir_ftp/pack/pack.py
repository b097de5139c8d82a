"""A contributor's project -> a job image: without root, without mounting anything, and on any system with mke2fs.

`selection` says which files are packed, `staging` copies them to a place of their own, `filesystem` makes the file
system, `compression` the outer format. The same files make the same image, whoever packs them, where and when:
in the image all belong to root and have one time, unless their own are kept. Modes, links, symbolic links, holes and
extended attributes are kept.
"""

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import msgspec

from construir_ftp import formats
from construir_ftp.errors import MissingError, RefusedError, UsageError, plainly
from construir_ftp.intake import program
from construir_ftp.jobs import names, request, result
from construir_ftp.jobs.request import Wishes
from construir_ftp.pack import compression, filesystem, selection, staging
from construir_ftp.pack.filesystem import Times

RUN = "run.sh"
_RESULT = "result.json"
# Free in the image unless said otherwise: most jobs leave less.
SPACE_BYTES = 64 * 2**20
# The first day that every format of archives can tell of: 2 January 1980.
_LONG_AGO_S = 315_619_200
_LATEST_S = 2**31 - 1
# What is read of a program to see that it is no text of another system, as much as a server looks at.
_BEGIN_BYTES = 2**20

# Hears what is being done, how many bytes of that are done, and how many there are.
Tell = Callable[[str, int, int], None]


def _quietly(_what: str, _done_bytes: int, _all_bytes: int) -> None:
    """For whoever doesn't watch."""


class Wrapping(msgspec.Struct, frozen=True, kw_only=True):
    """How a job is packed. `level` is the codec's own unless given. `keep_times`: files keep the times of their last
    change; `everything`: nothing is left out of a directory.
    """

    space_bytes: int = SPACE_BYTES
    codec: str = "zstd"
    level: int | None = None
    keep_times: bool = False
    everything: bool = False

    def check(self) -> None:
        """Raise UsageError if there is no such codec, or level of it."""
        formats.find(self.codec)
        compression.check_level(self.codec, self.level)


def pack(source: Path, target: Path, space_bytes: int = 0, codec: str = "zstd", *, tell: Tell = _quietly) -> list[str]:
    """As `pack_directory`, with nothing special about it."""
    return pack_directory(source, target, Wrapping(space_bytes=space_bytes, codec=codec), tell)


def pack_directory(source: Path, target: Path, wrapping: Wrapping, tell: Tell = _quietly) -> list[str]:
    """Make `target`, a job, of the directory `source`, but for what .gitignore and .construirignore leave out; and for
    `target` itself, which may be in it, images of it that were packed into it before, and results of jobs, which
    `construir run` and `fetch` put where they are run.

    Visible under its name only when it is complete; what had that name is replaced. Returns, in words, which results
    there were, and what could not be packed, such as sockets. Raises UsageError if `source` is no job, RefusedError if
    no server takes its construir.toml or run.sh, ConstruirError if no image can be made.
    """
    wrapping.check()
    _check_target(target)
    run = _check_source(source)
    with plainly(source):
        results = [] if wrapping.everything else _results(source)
        selected = selection.select(source, everything=wrapping.everything)
        images = [] if wrapping.everything else [path for path in selected if path in _own_images(source)]
        selected = [path for path in selected if path not in images]
        paths = [path for path in _without(target, source, selected) if path.partition("/")[0] not in results]
        if run not in paths and not _is_behind_a_link(source, run):
            raise UsageError(f"{source / run}: left out by .gitignore or {selection.IGNORE}; a job needs it")
        try:
            left_out = _pack(source, paths, target, wrapping, _epoch_s(_LONG_AGO_S), tell)
        except RefusedError as error:
            raise _placed(error, source) from error
        packed = [f"{name}: the directory, packed before" for name in images if name != _name_within(target, source)]
        return [f"{name}: the result of a job" for name in results] + packed + left_out


def pack_commit(repository: str, revision: str, target: Path, wrapping: Wrapping, tell: Tell = _quietly) -> list[str]:
    """As `pack_directory`, of the tree of a commit: of a checkout, a bare repository, or the URL of one.

    Nothing has its own time: all are of the time of the commit.
    """
    wrapping.check()
    _check_target(target)
    # By its whole path, since git works in another directory.
    beside = target.absolute().parent
    with plainly(target), tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=beside) as place:
        tree = Path(place) / "tree"
        tree.mkdir()
        with selection.opened(repository, revision) as (directory, commit):
            selection.export(directory, commit, tree)
            seconds = _epoch_s(selection.commit_time(directory, commit))
        if not (tree / (run := _run_of(tree))).is_file():
            raise UsageError(f"{repository}: {revision} has no {run}; {_missing(run, '.')}, and commit it")
        everything = msgspec.structs.replace(wrapping, everything=False, keep_times=False)
        _check_source(tree)
        return _pack(tree, selection.select(tree), target, everything, seconds, tell)


def _check_target(target: Path) -> None:
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent}: not a directory; choose another place with -o")


def _check_source(source: Path) -> str:
    """The path in the directory of the program that its job runs. Raises UsageError and MissingError."""
    if not source.exists():
        raise MissingError(f"{source} is not there; a job is a directory with a run.sh in it")
    if not source.is_dir():
        raise UsageError(f"{source}: not a directory; a job is a directory with a run.sh in it")
    run = _run_of(source)
    program = source / run
    if not program.is_file():
        raise UsageError(f"{program}: not there, or not a file; {_missing(run, source)}")
    if not program.stat().st_mode & 0o111 and (staging.HAS_MODES or not staging.is_script(program)):
        raise UsageError(f"{program}: not executable; run: chmod +x {program}")
    return run


def _run_of(source: Path) -> str:
    """The path of what a directory's job runs; run.sh where its construir.toml can't be read, or makes no sense."""
    try:
        return _wanted(source).run.removeprefix("./")
    except (RefusedError, OSError):
        return RUN


def _missing(run: str, source: Path | str) -> str:
    """What to do where there is nothing to run."""
    if run == RUN:
        return f"write one with: construir init {source}"
    return f"{request.FILE} names it as `run`: write it, or name another"


def _is_behind_a_link(source: Path, run: str) -> bool:
    return any((source / parent).is_symlink() for parent in PurePosixPath(run).parents)


def _own_images(source: Path) -> set[str]:
    """What this directory is called when it is packed where one stands in it."""
    name = names.name_of(source)
    return {f"{name}.img{row.suffix}" for row in formats.FORMATS.values() if row.suffix}


def _name_within(target: Path, source: Path) -> str:
    return target.name if target.parent.resolve() == source.resolve() else ""


def _placed(error: RefusedError, source: Path) -> RefusedError:
    """The same, with the directory before the files that are to be mended, as whoever stands outside names them."""
    files = rf"(?<![\w/.-])({re.escape(request.FILE)}|{re.escape(_run_of(source))})(?![\w(])"
    return RefusedError(re.sub(files, lambda found: str(source / found[0]), str(error)), error.reply)


def _without(target: Path, source: Path, paths: list[str]) -> Iterator[str]:
    """Leave out the target, if it is in the directory, and drafts of it that were killed."""
    place = target.parent.resolve()
    inside = place.is_relative_to(source.resolve())
    above = (place.relative_to(source.resolve()).as_posix() + "/").removeprefix("./") if inside else ""
    for path in paths:
        is_own = path == above + target.name or path.startswith(f"{above}.{target.name}.")
        if not (inside and is_own):
            yield path


def _results(source: Path) -> list[str]:
    """The directories there that hold the result of a job, and still have the name that it was brought under: its id.

    Each run would make the next job larger, and another one.
    """
    found = sorted(path for path in source.glob(f"*/{_RESULT}") if path.is_file())
    return [path.parent.name for path in found if _id_in(path) == path.parent.name]


def _id_in(path: Path) -> str:
    try:
        return result.decode(path.read_bytes()).id
    except msgspec.MsgspecError:
        return ""


def _epoch_s(otherwise: int) -> int:
    """The time that files are given, in seconds since 1970 (reproducible-builds.org, SOURCE_DATE_EPOCH)."""
    told = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not told:
        return min(otherwise, _LATEST_S)
    if not told.isdecimal() or int(told) > _LATEST_S:
        raise UsageError(f"SOURCE_DATE_EPOCH is {told!a}; expected seconds since 1970, as date +%s prints them")
    return int(told)


def _pack(source: Path, paths: list[str], target: Path, wrapping: Wrapping, epoch_s: int, tell: Tell) -> list[str]:
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as draft:
        content, image, packed = Path(draft) / "content", Path(draft) / "disk.img", Path(draft) / "packed"
        content.mkdir()
        counter = _Counter("copying", staging.total_bytes(source, paths), tell)
        staged = staging.Stage(source, content, counter.add).fill(paths)
        tell("making the file system", 0, 0)
        wanted = _wanted(content)
        _check_program(content, wanted.run)
        times = Times(epoch_s, wrapping.keep_times)
        filesystem.make(content, staged, image, wrapping.space_bytes, int(wanted.space or 0), times)
        if wrapping.codec == "raw":
            image.replace(target)
            return staged.left_out
        counter = _Counter(f"packing with {wrapping.codec}", image.stat().st_size, tell)
        compression.compress(wrapping.codec, image, packed, wrapping.level, counter.add)
        packed.replace(target)
        return staged.left_out


def _wanted(content: Path) -> Wishes:
    """What the job's construir.toml asks for. Raises RefusedError where a server would refuse the file."""
    asked = content / request.FILE
    try:
        status = asked.lstat()
    except FileNotFoundError:
        request.check_absent(path.name for path in content.iterdir())
        return Wishes()
    request.check_file(mode=status.st_mode, size_bytes=status.st_size)
    return request.read(request.decode(asked.read_bytes()))


def _check_program(content: Path, run: str) -> None:
    """Raise RefusedError where a server would refuse the program to run for how its text begins."""
    path = (content / run).resolve()
    if path.is_relative_to(content.resolve()) and path.is_file():
        with path.open("rb") as file:
            program.check_text(run.removeprefix("./"), file.read(_BEGIN_BYTES))


class _Counter:
    """Adds up what is done of one thing."""

    def __init__(self, what: str, all_bytes: int, tell: Tell) -> None:
        self._what, self._done_bytes, self._all_bytes, self._tell = what, 0, all_bytes, tell
        tell(what, 0, all_bytes)

    def add(self, size_bytes: int) -> None:
        self._done_bytes += size_bytes
        self._tell(self._what, min(self._done_bytes, self._all_bytes), self._all_bytes)
