"""A finished result -> a layer that jobs can ask for by a name of its own.

The result is hostile, and is read as pack reads it: without mounting, and only regular files, directories and symbolic
links are taken. All belongs to root in the layer; modes are kept, without set-user-ID and set-group-ID bits; extended
attributes, with which overlayfs marks what a layer hides, are not.
"""

import re
import stat
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import PurePosixPath

from construir_ftp.diskimage import codec, e2fsprogs, extfs, tree
from construir_ftp.errors import ConstruirError, UsageError
from construir_ftp.image import baseimage
from construir_ftp.jobs.job import read_result
from construir_ftp.jobs.spool import Job
from construir_ftp.layers import store
from construir_ftp.layers.squashfs import squash
from construir_ftp.layers.store import Layer, Store
from construir_ftp.units import Size

_NAME = re.compile(r"(?!packages-)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION_DIGITS = 12
# What a job's image has for the job's own sake.
_NOT_FOR_OTHERS = (b"run.sh", b"construir.toml", b"lost+found")


def check_name(name: str) -> None:
    """Raises UsageError if a layer can't be published as `name`."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!a}: a layer is called by letters, digits and . _ -, and not packages-...")


def publish(
    layers: Store, job: Job, name: str, *, directory: PurePosixPath | None, architecture: str, max_installed: Size
) -> Layer:
    """Make the layer `name` of what is in `directory` of a result's image: DIRECTORY/usr/... comes as /usr/...

    None is the whole image, without what is only there for the job. Raises UsageError, ConstruirError.
    """
    check_name(name)
    result = read_result(job)
    if result.status != "success" or result.image is None:
        raise UsageError(f"{job.id} ended as {result.status}: only what a successful job left can be published")
    with layers.alone(name), layers.draft() as draft:
        disk, target = draft / "disk.img", draft / store.IMAGE
        codec.unpack(
            result.codec, job.path / result.image, disk, result.image_bytes, codec.patience_s(result.image_bytes)
        )
        e2fsprogs.repair(disk)
        with disk.open("rb") as file:
            content = Content(extfs.Image(file), directory, max_installed)
            newest_s = Content(extfs.Image(file), directory, max_installed).newest_s()
            squash(content.tar(), target, max_installed, newest_s)
        part = baseimage.measure(target)
        manifest = store.LayerManifest(
            name=f"{name}@{part.sha256.removeprefix('sha256:')[:_VERSION_DIGITS]}",
            kind="published",
            base=result.base_image.digest if result.base_image else "",
            architecture=architecture,
            contents=[job.id],
            bytes=part.bytes,
            installed_bytes=content.taken_bytes,
            sha256=part.sha256,
            created=datetime.now(UTC),
        )
        return layers.publish(draft, manifest)


class Content:
    """What is published of an image; `taken_bytes` counts what has been read."""

    def __init__(self, disk: extfs.Image, directory: PurePosixPath | None, most_bytes: int) -> None:
        self._disk = disk
        self._all = directory is None
        self._most_bytes = most_bytes
        self.taken_bytes = 0
        names = [part.encode() for part in directory.parts if part != "/"] if directory else []
        top = disk.find(*names)
        if top is None or top.kind != stat.S_IFDIR:
            raise UsageError(f"there is no directory {directory} in the image")
        self._top = top

    def tar(self) -> Iterator[bytes]:
        """A tar file of it, in pieces (GNU's format, whose names are any bytes)."""
        names: dict[int, bytes] = {}
        for path, inode in self._walk():
            header = _header(path, inode)
            if inode.kind == stat.S_IFLNK:
                header.linkname = _text(tree.link_target(self._disk, inode))
            elif inode.kind == stat.S_IFREG and inode.number in names:
                header.type, header.linkname = tarfile.LNKTYPE, _text(names[inode.number])
            elif inode.kind == stat.S_IFREG:
                names[inode.number] = path
                header.size = self._take(inode)
            elif inode.kind != stat.S_IFDIR:
                continue
            yield header.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
            if header.size:
                yield from self._disk.stream(inode)
                yield bytes(-header.size % tarfile.BLOCKSIZE)
        yield bytes(2 * tarfile.BLOCKSIZE)

    def newest_s(self) -> int:
        """The latest time of change of anything published, in seconds since the Epoch."""
        return max((_mtime_s(inode) for _, inode in self._walk()), default=0)

    def _walk(self) -> Iterator[tuple[bytes, extfs.Inode]]:
        for path, inode in tree.walk(self._disk, self._top):
            if not (self._all and path.partition(b"/")[0] in _NOT_FOR_OTHERS):
                yield path, inode

    def _take(self, inode: extfs.Inode) -> int:
        self.taken_bytes += inode.size_bytes
        if self.taken_bytes > self._most_bytes:
            raise ConstruirError(
                f"what is to be published takes more than {self._most_bytes >> 20} MiB; see layers.max_installed"
            )
        return inode.size_bytes


_TYPES = {stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE}


def _header(path: bytes, inode: extfs.Inode) -> tarfile.TarInfo:
    header = tarfile.TarInfo(_text(path))
    header.type = _TYPES.get(inode.kind, tarfile.REGTYPE)
    header.mode = inode.mode & 0o1777
    header.mtime = _mtime_s(inode)
    return header


def _mtime_s(inode: extfs.Inode) -> int:
    # squashfs has 32 bits for it.
    return min(max(0, inode.mtime_ns // 10**9), 2**32 - 1)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
