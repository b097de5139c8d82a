"""A file system of its own for the spool: ext4 on a file, whose power can be cut."""

import shutil
import subprocess
import time
from pathlib import Path

_SIZE = "512M"
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
        deadline = time.monotonic() + _LONG_S
        while subprocess.run(["umount", self.root], capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, "somebody holds the disk"
            time.sleep(0.1)
