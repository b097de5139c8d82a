"""What differs between two ext images, found without mounting them: names, kinds, modes, owners, times, content.

Of a hostile image it believes no more than extfs does; but a hole is read like what it stands for, so that somebody has
to bound the time. Names come as bytes, and are made printable by whoever shows them.
"""

import hashlib
import os
import stat
import struct
from pathlib import Path

import msgspec

from construir_ftp.diskimage import extfs, tree
from construir_ftp.diskimage.extfs import Inode

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
}


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What has a name in an image. `content` is a digest of a file's, the target of a link, the number of a device."""

    kind: str
    mode: str
    owner: str
    size_bytes: int
    modified_ns: int
    content: str


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A path, absolute in the image, and what it leads to: in the old one, and in the new; None is nothing."""

    path: bytes
    old: Entry | None
    new: Entry | None

    def fields(self) -> list[str]:
        """What has changed of it, by the names of Entry's fields; all of them if it was added or removed."""
        return [name for name in Entry.__struct_fields__ if self._field(self.old, name) != self._field(self.new, name)]

    @staticmethod
    def _field(entry: Entry | None, name: str) -> object:
        return None if entry is None else getattr(entry, name)


def compare_images(old: Path, new: Path) -> list[Difference]:
    """The differences of two images, sorted by path. Raises ConstruirError where one is damaged, or no ext image."""
    before, after = entries(old), entries(new)
    return [
        Difference(path=path, old=before.get(path), new=after.get(path))
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]


def entries(path: Path) -> dict[bytes, Entry]:
    """All that an image holds, by its path."""
    with path.open("rb") as file:
        image = extfs.Image(file)
        # A file with several names is read once: extfs takes blocks that come again for damage.
        known: dict[int, Entry] = {}
        top = image.inode(extfs.ROOT)
        found = {b"/": _entry(image, top)}
        for name, inode in tree.walk(image, top):
            if inode.number not in known:
                known[inode.number] = _entry(image, inode)
            found[b"/" + name] = known[inode.number]
    return found


def _entry(image: extfs.Image, inode: Inode) -> Entry:
    return Entry(
        kind=_KINDS.get(inode.kind, "unknown"),
        mode=f"{stat.S_IMODE(inode.mode):04o}",
        owner=f"{inode.uid}:{inode.gid}",
        # A directory's size is a matter of its history.
        size_bytes=0 if inode.kind == stat.S_IFDIR else inode.size_bytes,
        modified_ns=inode.mtime_ns,
        content=_content(image, inode),
    )


def _content(image: extfs.Image, inode: Inode) -> str:
    if inode.kind == stat.S_IFREG:
        return "sha256:" + _digest(image, inode)
    if inode.kind == stat.S_IFLNK:
        return os.fsdecode(image.link_target(inode))
    if inode.kind in (stat.S_IFCHR, stat.S_IFBLK):
        return _device(inode)
    return ""


def _digest(image: extfs.Image, inode: Inode) -> str:
    """SHA-256 of what a file holds, its holes read as zeros."""
    hasher, at = hashlib.sha256(), 0
    for offset, data in image.content(inode):
        _hash_zeros(hasher, offset - at)
        hasher.update(data)
        at = offset + len(data)
    _hash_zeros(hasher, inode.size_bytes - at)
    return hasher.hexdigest()


def _hash_zeros(hasher: "hashlib._Hash", count: int) -> None:
    zeros = bytes(min(count, 1 << 20))
    while count > 0:
        hasher.update(zeros[:count])
        count -= len(zeros)


def _device(inode: Inode) -> str:
    """Major and minor number, in the first pointer if they are of 8 bits each, else in the second (ext4_iget)."""
    narrow, wide = struct.unpack_from("<II", inode.map)
    return f"{os.major(narrow or wide)}:{os.minor(narrow or wide)}"
