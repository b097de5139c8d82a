"""A copy of what is packed, as it is to be in the image, and what it will need there.

The source is only read. Holes stay holes. Extended attributes are those that mean the same everywhere (xattr(7):
user.*, and file capabilities). The copy is not given them: not every file system takes them, or keeps their order.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

BLOCK_BYTES = 4_096
_PIECE_BYTES = 256 * BLOCK_BYTES
_ZEROS = bytes(BLOCK_BYTES)
_ATTRIBUTE = re.compile(r"user\.[\w.:/@+ -]+|security\.capability", re.ASCII)
_SCRIPT_MODE, _OTHER_MODE = 0o755, 0o644
HAS_MODES = os.name != "nt"

Tell = Callable[[int], None]


class StagedTree(msgspec.Struct):
    """What has been copied: the blocks and inodes it needs, modes and extended attributes by path, and what had to be
    left out.
    """

    blocks: int = 0
    inodes: int = 0
    modes: dict[bytes, int] = msgspec.field(default_factory=dict)
    attributes: dict[bytes, dict[str, bytes]] = msgspec.field(default_factory=dict)
    left_out: list[str] = msgspec.field(default_factory=list)


def total_bytes(source: Path, paths: Iterable[str]) -> int:
    """The length of all there is to copy."""
    return sum((source / path).lstat().st_size for path in paths)


class Stage:
    """Copies of files of `source` in `target`, an empty directory. `tell` hears how many bytes more are done."""

    def __init__(self, source: Path, target: Path, tell: Tell) -> None:
        self.staged = StagedTree()
        self._source, self._target, self._tell = source, target, tell
        self._firsts: dict[tuple[int, int], Path] = {}
        self._directories = {"": 0}  # and the length of the names in each

    def fill(self, paths: Iterable[str]) -> StagedTree:
        """Copy these, directories before what is in them. Raises OSError."""
        for path in paths:
            facts = (self._source / path).lstat()
            if stat.S_IFMT(facts.st_mode) in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                self._place(path, facts)
            else:
                self.staged.left_out.append(f"{path}: a device, a socket or a pipe")
            self._tell(facts.st_size)
        for path, name_bytes in reversed(self._directories.items()):
            self._dress(path, (self._source / path).lstat())
            self.staged.blocks += 1 + name_bytes * 5 // 4 // BLOCK_BYTES
        return self.staged

    def _place(self, path: str, facts: os.stat_result) -> None:
        original, copy = self._source / path, self._target / path
        self._directories[path.rpartition("/")[0]] += 12 + len(os.fsencode(copy.name))
        self.staged.modes[os.fsencode(path)] = _mode(original, facts)
        if facts.st_nlink > 1 and stat.S_ISREG(facts.st_mode):
            first = self._firsts.setdefault((facts.st_dev, facts.st_ino), copy)
            if first is not copy:
                copy.hardlink_to(first)
                return
        self.staged.inodes += 1
        self.staged.blocks += 1  # a long symbolic link, or extended attributes
        if stat.S_ISDIR(facts.st_mode):
            copy.mkdir(mode=0o700)
            self._directories[path] = 0
        elif stat.S_ISLNK(facts.st_mode):
            copy.symlink_to(original.readlink())
            _set_time(copy, facts)
        else:
            blocks = _copy(original, copy)
            self.staged.blocks += blocks + blocks // 512 + 2  # pointers: four bytes a block
            self._dress(path, facts)

    def _dress(self, path: str, facts: os.stat_result) -> None:
        """Give the copy the mode and the time of the original, the last of which leaves it as it is."""
        copy = self._target / path
        if attributes := self._attributes(path):
            self.staged.attributes[os.fsencode(path)] = attributes
        copy.chmod(stat.S_IMODE(facts.st_mode))
        _set_time(copy, facts)

    def _attributes(self, path: str) -> dict[str, bytes]:
        """The extended attributes of the original, in the order of their names."""
        if not hasattr(os, "listxattr"):
            return {}
        found, original = {}, self._source / path
        for name in sorted(os.listxattr(original)):
            if _ATTRIBUTE.fullmatch(name):
                found[name] = os.getxattr(original, name)
            elif name.startswith("user."):
                self.staged.left_out.append(f"{path}: the attribute {name!a}, for its name")
        return found


def _set_time(copy: Path, facts: os.stat_result) -> None:
    follow = os.utime not in os.supports_follow_symlinks
    with suppress(FileNotFoundError):  # Windows can't set a link's own, which may lead nowhere
        os.utime(copy, ns=(facts.st_mtime_ns, facts.st_mtime_ns), follow_symlinks=follow)


def _mode(original: Path, facts: os.stat_result) -> int:
    """Permissions; where the system has none what begins as a script does can be executed."""
    if HAS_MODES:
        return stat.S_IMODE(facts.st_mode)
    if stat.S_ISDIR(facts.st_mode):
        return _SCRIPT_MODE
    return _SCRIPT_MODE if original.is_file() and is_script(original) else _OTHER_MODE


def is_script(file: Path) -> bool:
    """Whether a file names its interpreter (execve(2))."""
    with file.open("rb") as opened:
        return opened.read(2) == b"#!"


def _copy(original: Path, copy: Path) -> int:
    """Copy a file's content, blocks of zeros as holes; how many blocks are none."""
    written = 0
    with original.open("rb") as source, copy.open("xb") as target:
        size_bytes = os.fstat(source.fileno()).st_size
        for start, end in _data(source.fileno(), size_bytes):
            source.seek(start)
            target.seek(start)
            while start < end and (piece := source.read(min(_PIECE_BYTES, end - start))):
                start += len(piece)
                filled = sum(piece[at : at + BLOCK_BYTES] != _ZEROS for at in range(0, len(piece), BLOCK_BYTES))
                if filled:
                    target.write(piece)
                else:
                    target.seek(start)
                written += filled
        target.truncate(size_bytes)
    return written


def _data(descriptor: int, size_bytes: int) -> list[tuple[int, int]]:
    """Where a file holds data (lseek(2), SEEK_DATA), in whole blocks; all of it where the system doesn't tell."""
    if not hasattr(os, "SEEK_DATA"):
        return [(0, size_bytes)]
    found, at = [], 0
    with suppress(OSError):  # ENXIO: no data after `at`
        while at < size_bytes:
            start = os.lseek(descriptor, at, os.SEEK_DATA) // BLOCK_BYTES * BLOCK_BYTES
            at = -(-os.lseek(descriptor, start, os.SEEK_HOLE) // BLOCK_BYTES) * BLOCK_BYTES
            found.append((start, min(at, size_bytes)))
    return found
