"""A disk image from elsewhere: where its one root partition is, and that partition alone as a file.

Nothing of it is believed. What is in a qcow2 file qemu-img unpacks, in a jail that has no other file, so that no name
in it leads anywhere; whether it names one, and how large it is, is read before. sfdisk, jailed too, reads the table.

Sources: QEMU's docs/interop/qcow2.txt; sfdisk(8), --json.
"""

import os
import struct
from pathlib import Path
from typing import IO

import msgspec

from construir_ftp import files, schema
from construir_ftp.diskimage import superblock
from construir_ftp.errors import ConstruirError, RefusedError
from construir_ftp.jail import cell, tools

_TIMEOUT_S = 3600
_MEMORY_BYTES = 1024 * 2**20
# The largest disk there may be, holes included.
_MOST_BYTES = 64 * 2**30
_SECTOR_BYTES = 512
_TABLE_BYTES = 2**20

_QCOW2 = b"QFI\xfb"
# Version, where the name of a backing file is, its length, bits of a cluster, size, encryption; version 3: features.
_QCOW2_HEADER, _QCOW2_FEATURES = ">4xIQIIQI", (">Q", 72)
_EXTERNAL_DATA = 4


class _Partition(msgspec.Struct, frozen=True):
    start: int
    size: int


class _Table(msgspec.Struct, frozen=True):
    partitions: list[_Partition] = []


class _Said(msgspec.Struct, frozen=True):
    partitiontable: _Table


def take_root(file: Path, target: Path) -> None:
    """Write to `target` the root file system that is in the image `file`: raw, or qcow2, with one ext partition.

    Files that are needed meanwhile are made beside `target`. Raises ConstruirError, saying why `file` is no such image.
    """
    if not file.is_file():
        raise ConstruirError(f"{file}: no such file")
    with file.open("rb") as opened:
        is_qcow2 = opened.read(len(_QCOW2)) == _QCOW2
    raw = _unpacked(file, target.with_name("premade.raw")) if is_qcow2 else file
    try:
        start, size = _root_partition(raw, file, target.with_name("premade.table"))
        files.take(raw, start, size, target)
    except EOFError as error:
        raise ConstruirError(f"{file}: its root partition is cut short") from error
    finally:
        if is_qcow2:
            raw.unlink()


# -- qcow2 -------------------------------------------------------------------------------------------------------


def _unpacked(file: Path, target: Path) -> Path:
    with file.open("rb") as opened:
        size_bytes = _check_qcow2(file, opened.read(512).ljust(512, b"\0"))
    # A copy, which the jail's user may read.
    copy = target.with_name("premade.qcow2")
    files.copy(file, copy)
    copy.chmod(0o444)
    target.touch()
    walls = cell.writer(target, memory_bytes=_MEMORY_BYTES, cpu_s=_TIMEOUT_S, most_bytes=size_bytes)
    walls = msgspec.structs.replace(walls, readable=(copy.resolve(),), writable=(target.resolve(),))
    argv: list[str | Path] = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", copy.resolve(), target.resolve()]
    ended = tools.run(walls, argv, _TIMEOUT_S)
    copy.unlink()
    if ended.status:
        reason = ended.words.rpartition(": ")[2]
        raise ConstruirError(f"{file}: qemu-img can't read it as qcow2 ({reason!a})")
    os.chown(target, os.geteuid(), os.getegid())
    return target


def _check_qcow2(file: Path, header: bytes) -> int:
    """The size of the disk in a qcow2 file. Raises ConstruirError where it needs other files, or a key, or is vast."""
    version, name_at, _, _, size_bytes, encryption = struct.unpack_from(_QCOW2_HEADER, header)
    features = struct.unpack_from(_QCOW2_FEATURES[0], header, _QCOW2_FEATURES[1])[0] if version >= 3 else 0
    if name_at:
        raise ConstruirError(f"{file}: its content is in another file (a backing file); flatten it: qemu-img convert")
    if features & _EXTERNAL_DATA:
        raise ConstruirError(f"{file}: its content is in another file (a data file); flatten it: qemu-img convert")
    if encryption:
        raise ConstruirError(f"{file}: it is encrypted")
    if size_bytes > _MOST_BYTES:
        raise ConstruirError(f"{file}: a disk of more than {_MOST_BYTES >> 30} GiB")
    return int(size_bytes)


# -- partitions --------------------------------------------------------------------------------------------------


def _root_partition(raw: Path, file: Path, scratch: Path) -> tuple[int, int]:
    """Where the root partition begins, and how long it is, in bytes."""
    size_bytes = raw.stat().st_size
    partitions = [
        (part.start * _SECTOR_BYTES, part.size * _SECTOR_BYTES)
        for part in _table(raw, scratch)
        if part.start > 0 < part.size and (part.start + part.size) * _SECTOR_BYTES <= size_bytes
    ]
    with raw.open("rb") as opened:
        found = [(start, size) for start, size in partitions or [(0, size_bytes)] if _is_ext(opened, start)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConstruirError(
            f"{file}: {len(found)} of its partitions hold an ext file system; one, the root, is expected"
        )
    raise ConstruirError(f"{file}: no partition with an ext2, ext3 or ext4 file system; raw or qcow2 images have one")


def _is_ext(opened: IO[bytes], start: int) -> bool:
    try:
        return superblock.read_ext(os.pread(opened.fileno(), superblock.HEAD_BYTES, start)) is not None
    except RefusedError as error:
        raise ConstruirError(f"a partition can't be used: {error}") from error


def _table(raw: Path, scratch: Path) -> list[_Partition]:
    """The partitions in a disk's table; none if it has no table."""
    # A copy of where tables are, for the jail's user, who need not have a right to read the disk.
    size_bytes = raw.stat().st_size
    with raw.open("rb") as opened, scratch.open("xb") as copy:
        for at in (0, max(0, size_bytes - _TABLE_BYTES)):
            copy.seek(at)
            copy.write(os.pread(opened.fileno(), _TABLE_BYTES, at))
        copy.truncate(size_bytes)
    scratch.chmod(0o444)
    walls = cell.reader(memory_bytes=_MEMORY_BYTES, cpu_s=_TIMEOUT_S, readable=(scratch.resolve(),))
    # It warns of a disk that has grown, or was cut, since its table was made.
    ended = tools.run(walls, ["sfdisk", "--json", scratch.resolve()], _TIMEOUT_S)
    scratch.unlink()
    if ended.status:
        return []
    try:
        return schema.from_json(ended.output, _Said).partitiontable.partitions
    except msgspec.MsgspecError as error:
        raise ConstruirError(f"sfdisk says what is no partition table: {error}") from error
