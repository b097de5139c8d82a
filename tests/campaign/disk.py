"""File systems of their own: ext4 on a file for the spool, whose power can be cut, and a tmpfs that can be filled."""

import shutil
import subprocess
import time
from pathlib import Path

_SIZE, _TMPFS_SIZE = "512M", "16M"
_LONG_S = 60.0


class Disk:
    """An ext4 in `place`, mounted there. Only in a mount namespace of its own, as root."""

    def __init__(self, place: Path) -> None:
        self._file, self._copy, self.root = place / "disk.img", place / "disk.copy", place / "disk"
        self.root.mkdir()
        subprocess.run(["mke2fs", "-q", "-t", "ext4", self._file, _SIZE], check=True, capture_output=True)
        self._mount()

    def _mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", self._file, self.root], check=True)

    def copy(self) -> None:
        """Copy what is on the disk at one moment: the kernel has written nothing to it while it was copied.

        Whoever writes to the file system must stand still meanwhile. What the kernel holds back is not on the disk.
        """
        deadline = time.monotonic() + _LONG_S
        written = None
        while written != (written := self._written()):
            assert time.monotonic() < deadline, "the disk does not come to rest"
            subprocess.run(["cp", "--sparse=auto", self._file, self._copy], check=True)

    def _written(self) -> list[str]:
        """The writes that were made to the disk, and how many are on their way (Documentation/block/stat.rst)."""
        fields = Path("/sys/block", Path(self._device()).name, "stat").read_text().split()
        return fields[4:9]

    def _device(self) -> str:
        return subprocess.run(
            ["findmnt", "-nro", "SOURCE", self.root], check=True, capture_output=True, text=True
        ).stdout.strip()

    def come_back(self) -> None:
        """Mount the copy in its place. Nobody may have anything open on it."""
        self.unmount()
        shutil.move(self._copy, self._file)
        self._mount()

    def unmount(self) -> None:
        """Unmount it, once nobody has anything open on it."""
        _unmount(self.root)


class Tmpfs:
    """A small tmpfs in `place` for temporary files. Only in a mount namespace of its own, as root."""

    def __init__(self, place: Path) -> None:
        self.root = place / "temporary"
        self.root.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_TMPFS_SIZE}", "tmpfs", self.root], check=True)

    def within(self) -> list[str]:
        """The beginning of a command whose temporary files are to be there."""
        return ["env", f"TMPDIR={self.root}"]

    def unmount(self) -> None:
        """Unmount it, once nobody has anything open on it."""
        _unmount(self.root)


def _unmount(root: Path) -> None:
    deadline = time.monotonic() + _LONG_S
    while subprocess.run(["umount", root], capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline, f"somebody holds {root}"
        time.sleep(0.1)
