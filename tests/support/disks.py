"""Small raw disks with a partition table, made without root and without mounting. Plain functions."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from construir_ftp import files
from tests.support.images import MIB, run


def partitioned(target: Path, partitions: Sequence[Path], label: str = "gpt") -> Path:
    """A new disk that holds these files as its partitions, one after another."""
    sizes = [-(-path.stat().st_size // MIB) for path in partitions]
    with target.open("xb") as file:
        file.truncate((sum(sizes) + 2) * MIB)
    table = "".join(f"size={size}MiB, type=L\n" for size in sizes)
    subprocess.run(["sfdisk", "-q", target], input=f"label: {label}\n{table}", text=True, check=True)
    at_mib = 1
    for path, size in zip(partitions, sizes, strict=True):
        files.put(path, target, at_mib * MIB)
        at_mib += size
    return target


def ext(target: Path, tree: Path, size: str = "4M", kind: str = "ext4") -> Path:
    """A new ext file system with what is in a directory."""
    run("mke2fs", "-q", "-t", kind, "-d", tree, target, size)
    return target


def fat(target: Path, file: Path) -> Path:
    """A new FAT file system with one file."""
    run("mformat", "-C", "-i", target, "-T", "4096", "-h", "16", "-s", "32", "::")
    run("mcopy", "-i", target, file, "::")
    return target
