"""The programs that people make images with, and pack them with: tests/server/test_compatibility tries each."""

import subprocess
from pathlib import Path
from typing import NamedTuple

from construir_ftp import process
from tests.support.places import JOBS

_EXT = "mke2fs -q -t ext4 -d '{job}' job.img 8M"
_QCOW2 = "qemu-img convert -f raw -O qcow2 job.img job.img.qcow2"


class Tool(NamedTuple):
    """`makes` leaves an image of the directory {job} in the file `output`; `package` is Debian's.

    `refusal` is the command that the server names for what it does not take.
    """

    name: str
    package: str
    output: str
    makes: str
    refusal: str = ""

    def run(self, place: Path) -> Path:
        """The image, made in `place`."""
        self._shell(self.makes.format(job=JOBS / "hello"), place)
        return place / self.output

    def version(self) -> str:
        """Of its package."""
        return self._shell(f"dpkg-query -W -f '${{Version}}' {self.package}", Path("/")).strip()

    @staticmethod
    def _shell(line: str, place: Path) -> str:
        return subprocess.run(
            ["sh", "-euc", line], cwd=place, env=process.environment(), check=True, capture_output=True, text=True
        ).stdout


def packed_by(name: str, package: str, suffix: str, line: str, refusal: str = "") -> Tool:
    """A program that packs the image which mke2fs has made."""
    return Tool(name, package, f"job.img{suffix}", f"{_EXT}; {line}", refusal)


IMAGE_TOOLS = (
    Tool("mke2fs -t ext2 -d", "e2fsprogs", "job.img", "mke2fs -q -t ext2 -d '{job}' job.img 4M"),
    Tool("mke2fs -t ext3 -d", "e2fsprogs", "job.img", "mke2fs -q -t ext3 -d '{job}' job.img 16M"),
    Tool("mke2fs -t ext4 -d", "e2fsprogs", "job.img", _EXT),
    Tool("genext2fs -d", "genext2fs", "job.img", "genext2fs -b 4096 -d '{job}' job.img"),
    Tool(
        "mkfs.btrfs --rootdir", "btrfs-progs", "job.img", "truncate -s 128M job.img; mkfs.btrfs -q -r '{job}' job.img"
    ),
    Tool("mkfs.xfs", "xfsprogs", "job.img", "truncate -s 320M job.img; mkfs.xfs -q job.img"),
    packed_by("gzip", "gzip", ".gz", "gzip job.img"),
    packed_by("pigz", "pigz", ".gz", "pigz job.img"),
    packed_by("bzip2", "bzip2", ".bz2", "bzip2 job.img"),
    packed_by("pbzip2", "pbzip2", ".bz2", "pbzip2 -q job.img"),
    packed_by("lbzip2", "lbzip2", ".bz2", "lbzip2 job.img"),
    packed_by("xz", "xz-utils", ".xz", "xz -T2 job.img"),
    packed_by("pixz", "pixz", ".xz", "pixz job.img job.img.xz"),
    packed_by("zstd", "zstd", ".zst", "zstd -q -T2 job.img"),
    packed_by("pzstd", "zstd", ".zst", "pzstd -q job.img"),
    packed_by("lz4", "lz4", ".lz4", "lz4 -q job.img job.img.lz4"),
    packed_by("Python's gzip", "python3", ".gz", "python3 -m gzip job.img"),
    packed_by("lzip", "lzip", ".lz", "lzip job.img", "lzip -dc"),
    packed_by("qemu-img convert -O qcow2", "qemu-utils", ".qcow2", _QCOW2, "qemu-img convert -O raw"),
)
