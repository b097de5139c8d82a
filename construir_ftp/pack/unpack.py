"""A job image, or what came back in one, -> a directory: without root, and without mounting anything.

An image that comes back from a job is hostile. What is unpacked belongs to whoever unpacks it; set-user-ID bits are
dropped, devices, sockets and pipes are left out, and nothing is written outside of the directory asked for.
"""

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from construir_ftp import formats, process
from construir_ftp.config import GateSection
from construir_ftp.diskimage import codec, e2fsprogs, extfs, tree
from construir_ftp.diskimage.stream import Stream, UploadReader, Whole
from construir_ftp.diskimage.tree import TooDeepError
from construir_ftp.errors import ConstruirError, RefusedError, UsageError, plainly
from construir_ftp.intake.verdict import Verdict
from construir_ftp.jobs import portable_names
from construir_ftp.pack import inspect
from construir_ftp.units import Size

_TIMEOUT_S = 2 * 3600
# Where the system does not say: Windows, without long paths (MAX_PATH).
_MOST_PATH_BYTES = 260
# For whoever unpacks by hand the image may be as large as it likes; zeros become holes.
_NO_LIMITS = GateSection(max_image=Size(2**60), ratio_free=Size(2**60))


class LeftOut(NamedTuple):
    """What was not unpacked, and why, in words that follow its path. What is below a directory goes unsaid.

    The cause is its name, its depth, or that it is none of the files that are ever unpacked.
    """

    path: Path
    why: str
    cause: Literal["name", "depth", "kind"]


def unpack(file: Path, directory: Path, *, every_name: bool = False) -> list[LeftOut]:
    """Put what is in the job or result `file`, in any codec, into `directory`, which is empty or does not exist.

    Returns what was left out: devices, sockets and pipes; what is nested too deep, or has too long a path for this
    system; and, unless `every_name` is wanted, names that mean another file, or none, on other systems (see
    portable_names). Raises UsageError if `directory` is in use, RefusedError if `file` is no job image, ConstruirError
    if the image is damaged or can't be read without mounting; `directory` is empty again then.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{directory}: not empty; choose a new directory")
    with plainly(file):
        found = _check(file)
        directory.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=directory) as draft:
                image = Path(draft) / "disk.img"
                _unwrap(found, file, image)
                e2fsprogs.repair(image)
                with image.open("rb") as opened:
                    return _extract(extfs.Image(opened), directory, _Names(directory, every_name=every_name))
        except BaseException:
            for entry in directory.iterdir():
                _remove(entry)
            raise


def _check(file: Path) -> Verdict:
    try:
        return inspect.judged(file, _NO_LIMITS)
    except RefusedError as error:
        raise RefusedError(f"{file}: {error}", error.reply) from error


def _unwrap(found: Verdict, file: Path, image: Path) -> None:
    """The image in a file, made in a jail if the tool for that is here, else by a library; zeros become holes."""
    argv = formats.find(found.codec).unpack_argv
    if not argv or process.find(argv[0]):
        codec.unpack(found.codec, file, image, found.image_bytes, _TIMEOUT_S, padding_bytes=found.padding_bytes)
        return
    with file.open("rb") as packed, image.open("xb") as target:
        upload = UploadReader(packed, Whole(found.upload_bytes))
        for block in Stream(found.codec, upload, int(_NO_LIMITS.max_memory)):
            if block.count(0) == len(block):
                target.seek(len(block), os.SEEK_CUR)
            else:
                target.write(block)
        target.truncate(found.image_bytes)


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink()


class _Names:
    """Which paths are unpacked, asked for in the order in which they come: a directory before what is in it."""

    def __init__(self, directory: Path, *, every_name: bool) -> None:
        self._every_name = every_name
        self._longest_bytes = _longest_path_bytes(directory)
        self._taken: dict[str, str] = {}

    def enters(self, path: bytes) -> bool:
        """Whether what is in a directory is wanted."""
        return not (self.is_too_long(path) or self.why_not(path))

    def is_too_long(self, path: bytes) -> bool:
        """Whether this system takes no such path."""
        return len(path) > self._longest_bytes

    def why_not(self, path: bytes) -> str:
        """Why a path can't be used; empty if it can. Each path is known from the first time on."""
        if self._every_name:
            return ""
        text = os.fsdecode(path)
        if why := portable_names.why_not(text.rpartition("/")[2]):
            return why
        twin = self._taken.setdefault(portable_names.folded(text), text)
        return "" if twin == text else f"is called like {os.fsencode(twin).decode(errors='replace')!r} on other systems"


def _longest_path_bytes(directory: Path) -> int:
    """How long a path below a directory can be (pathconf(3)); the end of a string and a slash count."""
    most_bytes = os.pathconf(directory, "PC_PATH_MAX") if hasattr(os, "pathconf") else _MOST_PATH_BYTES
    return most_bytes - len(os.fsencode(directory)) - 2


def _extract(image: extfs.Image, directory: Path, names: _Names) -> list[LeftOut]:
    """Write every file of the image below `directory`, which nobody else writes to; returns what was left out.

    Only directories made here are ever descended into, and nothing that exists is opened, so a symbolic link or a
    second entry of the same name leads nowhere.
    """
    left_out: list[LeftOut] = []
    directories = []
    names_of: dict[int, Path] = {}

    def broken(path: bytes, error: ConstruirError) -> None:
        if not isinstance(error, TooDeepError):
            raise error
        left_out.append(LeftOut(directory / os.fsdecode(path), "is nested too deep", "depth"))

    for path, inode in tree.walk(image, image.inode(extfs.ROOT), names.enters, broken):
        target = directory / os.fsdecode(path)
        if names.is_too_long(path):
            left_out.append(LeftOut(target, "has too long a path for this system", "depth"))
        elif why := names.why_not(path):
            left_out.append(LeftOut(target, why, "name"))
        elif inode.kind == stat.S_IFDIR:
            target.mkdir(mode=0o700)
            directories.append((inode, target))
        elif inode.kind == stat.S_IFLNK:
            target.symlink_to(os.fsdecode(tree.link_target(image, inode)))
        elif inode.kind == stat.S_IFREG and inode.number in names_of:
            target.hardlink_to(names_of[inode.number])
        elif inode.kind == stat.S_IFREG:
            names_of[inode.number] = target
            _write_file(image, inode, target)
        else:
            left_out.append(LeftOut(target, "is a device, a socket or a pipe", "kind"))
    for inode, place in reversed(directories):
        _restore(inode, place)
    with suppress(OSError):
        (directory / "lost+found").rmdir()
    return left_out


def _write_file(image: extfs.Image, inode: extfs.Inode, target: Path) -> None:
    with target.open("xb") as file:
        for offset, data in image.content(inode):
            file.seek(offset)
            file.write(data)
        file.truncate(inode.size_bytes)
    _restore(inode, target)


def _restore(inode: extfs.Inode, target: Path) -> None:
    """Modes without set-user-ID, set-group-ID and sticky bits, and the time of the last change."""
    target.chmod(inode.mode & 0o777)
    os.utime(target, ns=(inode.mtime_ns, inode.mtime_ns))
