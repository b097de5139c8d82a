"""A base image that is built on another day, by a machine of its own whose clock is ahead: nothing in it knows better.

The machine's Debian is a base image with what a build needs, of the release that runs here, so that Python's libraries
can come from here. Unlike a job's it has a network, QEMU's user-mode one, since packages come from the archive.
"""

import platform
import shutil
import subprocess
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.machine.shape import Shape
from tests.support import baseimages
from tests.support.appliance import construir, copy_program
from tests.support.images import run
from tests.support.places import SUPPORT

_PACKAGES = "bubblewrap,distro-info-data,lz4,mmdebstrap,python3"
_DISK = "6G"
# Under emulation on a busy host.
_BUILD_S = 40 * 60


def build(name: str, day: datetime, shape: Shape, place: Path) -> BaseImage:
    """Build the base image `name`, by its name alone, in a machine whose clock begins at `day` (UTC)."""
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    builder = baseimages.build(place / "builder", "builder", f"--suite={suite}", f"--include={_PACKAGES}")
    disk = _disk(place)
    console = place / "console.log"
    with console.open("wb") as said, suppress(subprocess.TimeoutExpired):
        argv = _argv(builder, disk, name, day, shape)
        subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=_BUILD_S, check=False)
    unpacked = construir("unpack", disk, place / "unpacked", timeout_s=baseimages.BUILD_S)
    assert unpacked.returncode == 0, unpacked.stderr
    assert (place / "unpacked" / "images" / name).exists(), console.read_text(errors="replace")[-4000:]
    return baseimage.find(place / "unpacked" / "images", name)


def _disk(place: Path) -> Path:
    tree, disk = place / "tree", place / "work.img"
    copy_program(tree / "program")
    shutil.copy(SUPPORT / "otherday.sh", tree / "init")
    run("mke2fs", "-q", "-t", "ext4", "-d", tree, disk, _DISK)
    shutil.rmtree(tree)
    return disk


def _argv(builder: BaseImage, disk: Path, name: str, day: datetime, shape: Shape) -> list[str]:
    # NVMe and ext4 are what Debian's cloud kernel has built in, so that no initramfs has to find the disks. It finds
    # one after the other, and waits for the root: when that is there, so is the one before it.
    line = "console=ttyS0 root=/dev/nvme0n2 rootwait rw panic=-1 quiet norandmaps no5lvl init=/bin/sh"
    start = f"mount -t devtmpfs devtmpfs /dev && mount -t ext4 /dev/nvme0n1 /srv && exec /srv/init {name}"
    return [
        *(shape.program, "-M", "q35", "-accel", shape.accelerator, "-cpu", "max", "-smp", "2", "-m", "4G"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"),
        *("-rtc", f"base={day:%Y-%m-%dT%H:%M:%S}", "-nic", "user,model=virtio-net-pci"),
        *("-kernel", str(builder.kernel), "-append", f'{line} -- -c "{start}"'),
        *("-device", "nvme,serial=disks"),
        *("-drive", f"if=none,id=root,file={builder.root},format=raw,snapshot=on,cache=unsafe"),
        *("-device", "nvme-ns,drive=root,nsid=2"),
        *("-drive", f"if=none,id=work,file={disk},format=raw,cache=unsafe"),
        *("-device", "nvme-ns,drive=work,nsid=1"),
    ]
