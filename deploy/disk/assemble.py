"""assemble.py ROOT MENU TARGET: the appliance's disk, of its root file system and GRUB's menu."""

import os
import sys
from pathlib import Path

from construir_ftp.diskimage import extfs
from construir_ftp.image import bootdisk

# GRUB reads the kernel from the root file system, so that packages can replace it.
_MODULES = ("ext2", "search_fs_uuid")


def main(root: Path, menu: Path, target: Path) -> None:
    """Write the disk, which is not to be there yet."""
    epoch_s = int(os.environ["SOURCE_DATE_EPOCH"])
    with root.open("r+b") as file:
        extfs.Image(file).settle_times(epoch_s)
    tree = target.with_name("boot")
    (tree / "grub").mkdir(parents=True)
    (tree / "grub" / "grub.cfg").write_bytes(menu.read_bytes())
    bootdisk.assemble(target, root, tree, epoch_s, _MODULES)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
