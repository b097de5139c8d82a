"""Directory -> job image -> directory: without root, and without mounting anything.

What is packed belongs to root in the image, whoever packs it, as the job runs as root; modes, times, links, symbolic
links and holes are kept. What is unpacked belongs to whoever unpacks it: an image that comes back from a
job is hostile, so set-user-ID bits are dropped, devices, sockets and pipes are left out, and nothing is written
outside of the directory asked for.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from construir_ftp import codec as codecs
from construir_ftp import extfs, gate, mend, process, tree, wishes
from construir_ftp.config import GateSection
from construir_ftp.court import Court
from construir_ftp.errors import CommandError, ConstruirError, RefusedError, UsageError
from construir_ftp.units import Size

_BLOCK_BYTES = 4_096
_INODE_BYTES = 256
_BLOCKS_PER_GROUP = 8 * _BLOCK_BYTES
# A job that uses its space for files of this length on average has an inode for each.
_BYTES_PER_INODE = 8_192
_TRIES = 6
_TIMEOUT_S = 2 * 3600
# For whoever unpacks by hand the image may be as large as it likes; zeros become holes.
_NO_LIMITS = GateSection(max_image=Size(2**60), ratio_free=Size(2**60))


class _Survey(msgspec.Struct):
    """What a directory will need in the image: blocks of content, and inodes."""

    blocks: int = 0
    inodes: int = 0


# -- pack ------------------------------------------------------------------------------------------------


def pack(source: Path, target: Path, space_bytes: int, codec: str = "zstd") -> None:
    """Make `target`, a job (compressed ext2) of the directory `source`, with `space_bytes` of free space.

    Visible under its name only when it is complete; what had that name is replaced. Raises UsageError if
    `source` is no job, ConstruirError if the image can't be made.
    """
    codecs.find(codec)
    _check_source(source, target)
    with _plainly(source), tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as draft:
        image, packed = Path(draft) / "disk.img", Path(draft) / "packed"
        _make_image(source, image, space_bytes)
        codecs.pack(codec, image, packed, _TIMEOUT_S)
        packed.replace(target)


@contextmanager
def _plainly(what: Path) -> Iterator[None]:
    """An OSError of the system, said in one line."""
    try:
        yield
    except OSError as error:
        raise ConstruirError(f"{error.filename or what}: {error.strerror}") from error


def _check_source(source: Path, target: Path) -> None:
    run = source / "run.sh"
    if not source.is_dir():
        raise UsageError(f"{source}: not a directory; a job is a directory with a run.sh in it")
    if not run.is_file():
        raise UsageError(f"{run}: not there, or not a file; a job is a directory with a run.sh in it")
    if not run.stat().st_mode & 0o111:
        raise UsageError(f"{run}: not executable; run: chmod +x {run}")
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent}: not a directory; choose another place with -o")
    if target.parent.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{target}: inside the directory that is packed; choose another place with -o")


def _make_image(source: Path, image: Path, space_bytes: int) -> None:
    """Create `image`, trying again with more blocks until all of `source` and the space fit."""
    survey = _measure(source)
    space_blocks = -(-space_bytes // _BLOCK_BYTES)
    inodes = survey.inodes + space_bytes // _BYTES_PER_INODE + 64
    inodes += _inodes_to_grow_by(source, survey.blocks + space_blocks)
    blocks = _image_blocks(survey.blocks + space_blocks, inodes)
    for _ in range(_TRIES):
        free_blocks = _fill(source, image, blocks, inodes)
        if free_blocks is not None and free_blocks >= space_blocks:
            return
        # A file system that compresses or deduplicates says its files take less than they hold.
        blocks = 2 * blocks if free_blocks is None else blocks + space_blocks - free_blocks + _BLOCKS_PER_GROUP // 64
    raise ConstruirError(f"{source}: does not fit into an image of {blocks * _BLOCK_BYTES} bytes")


def _inodes_to_grow_by(source: Path, blocks: int) -> int:
    """Inodes that are not needed before the job's `space` is there: each group that resize2fs(8) adds has as many as
    those that are there.
    """
    asked = source / wishes.FILE
    try:
        space_bytes = wishes.read(wishes.decode(asked.read_bytes())).space if asked.is_file() else None
    except RefusedError:
        return 0  # what is wrong with it, the gate says
    if space_bytes is None:
        return 0
    in_a_group = min(space_bytes, _BLOCKS_PER_GROUP * _BLOCK_BYTES) // _BYTES_PER_INODE
    return in_a_group * (blocks // _BLOCKS_PER_GROUP + 1)


def _measure(source: Path) -> _Survey:
    """Add up a directory; a file with several names counts once. Raises OSError for what can't be read."""
    survey = _Survey()
    seen: set[tuple[int, int]] = set()
    for directory, _, _ in os.walk(source, onerror=_raise):
        name_bytes = 0
        with os.scandir(directory) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                name_bytes += 12 + len(os.fsencode(entry.name))
                if (found.st_dev, found.st_ino) not in seen:
                    seen.add((found.st_dev, found.st_ino))
                    _count(survey, found)
        survey.blocks += 1 + name_bytes * 5 // 4 // _BLOCK_BYTES
    return survey


def _raise(error: OSError) -> None:
    raise error


def _count(survey: _Survey, found: os.stat_result) -> None:
    survey.inodes += 1
    survey.blocks += 1  # a long symbolic link, or extended attributes
    if stat.S_ISREG(found.st_mode):
        blocks = -(-min(found.st_size, found.st_blocks * 512) // _BLOCK_BYTES)
        survey.blocks += blocks + blocks // 512 + 2  # pointers: four bytes a block


def _image_blocks(content_blocks: int, inodes: int) -> int:
    """Blocks of an image that holds so much: content, inode tables and, for each group, bitmaps and a superblock."""
    blocks = content_blocks + -(-inodes * _INODE_BYTES // _BLOCK_BYTES)
    groups = blocks // _BLOCKS_PER_GROUP + 1
    descriptor_blocks = -(-groups * 32 // _BLOCK_BYTES)
    return blocks + groups * (5 + descriptor_blocks) + 64


def _fill(source: Path, image: Path, blocks: int, inodes: int) -> int | None:
    """Make `image`, all of it root's, with the content of `source`; its free blocks, None if that didn't fit."""
    image.unlink(missing_ok=True)
    # All features are named, so that the host's mke2fs.conf has no say; no reserved blocks, no journal.
    features = "none,ext_attr,dir_index,filetype,sparse_super,large_file"
    options = ["-q", "-F", "-t", "ext2", "-O", features, "-m", "0", "-E", "root_owner=0:0", "-d", str(source.resolve())]
    sizes = [f"-b{_BLOCK_BYTES}", f"-I{_INODE_BYTES}", f"-N{inodes}", str(image.resolve()), str(blocks)]
    try:
        process.run(["mke2fs", *options, *sizes], timeout_s=_TIMEOUT_S)
    except CommandError as error:
        if "Could not allocate" in str(error):
            return None
        raise
    with image.open("r+b") as file:
        filled = extfs.Image(file)
        filled.give_to_root()
        # mke2fs leaves out a last group too short for its own tables.
        file.truncate(filled.ext.blocks * _BLOCK_BYTES)
        return filled.ext.free_blocks


# -- unpack ----------------------------------------------------------------------------------------------


def unpack(file: Path, directory: Path) -> list[Path]:
    """Put what is in the job or result `file`, in any codec, into `directory`, which is empty or does not exist.

    Returns what was left out: devices, sockets and pipes. Raises UsageError if `directory` is in use, RefusedError if
    `file` is no job image, ConstruirError if the image is damaged or can't be read without mounting; `directory` is
    empty again then.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"{directory}: not empty; choose a new directory")
    with _plainly(file):
        found = _check(file)
        directory.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=directory) as draft:
                image = Path(draft) / "disk.img"
                codecs.unpack(found.codec, file, image, found.image_bytes, _TIMEOUT_S)
                mend.repair(image)
                with image.open("rb") as opened:
                    return _extract(extfs.Image(opened), directory)
        except BaseException:
            for entry in directory.iterdir():
                _remove(entry)
            raise


def _check(file: Path) -> gate.Verdict:
    try:
        with Court(_NO_LIMITS) as court:
            return gate.check(file, court)
    except RefusedError as error:
        raise RefusedError(f"{file}: {error}", error.reply) from error


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink()


def _extract(image: extfs.Image, directory: Path) -> list[Path]:
    """Write every file of the image below `directory`, which nobody else writes to; returns what was left out.

    Only directories made here are ever descended into, and nothing that exists is opened, so a symbolic link or a
    second entry of the same name leads nowhere.
    """
    left_out, directories = [], []
    names_of: dict[int, Path] = {}
    for path, inode in tree.walk(image, image.inode(extfs.ROOT)):
        target = directory / os.fsdecode(path)
        if inode.kind == stat.S_IFDIR:
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
            left_out.append(target)
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
