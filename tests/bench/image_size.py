"""How large the base image's root is, against Debian's genericcloud image and what debvm makes without being asked.

Debian's image can't be had from its package mirrors, so its equivalent is built here: mmdebstrap with the packages that
the Debian cloud team's image builder (debian-cloud-images, classes SYSTEM_BOOT, CLOUD and EXTRAS) installs, without
what they recommend, on a file system such as mke2fs makes by default.

Run from the repository: .venv/bin/python -m tests.bench.image_size
"""

import os
import subprocess
from pathlib import Path

from construir_ftp import process
from construir_ftp.config import Config
from tests import bench
from tests.bench import Line, stock

_CLOUD = (
    # the machine
    *("linux-image-cloud-amd64", "grub-cloud-amd64", "cloud-init", "cloud-utils", "cloud-guest-utils"),
    *("openssh-server", "ssh-import-id", "cloud-initramfs-growroot"),
    # a system that boots
    *("sudo", "libpam-systemd", "systemd-resolved", "libnss-myhostname", "netplan.io", "polkitd", "systemd-timesyncd"),
    *("unattended-upgrades", "apparmor", "zstd", "apt-utils", "init", "iptables", "iputils-ping", "less", "nano"),
    *("netbase", "vim-tiny", "whiptail"),
    # extras
    *("apt-listchanges", "bash-completion", "bind9-host", "man-db", "manpages", "socat", "pciutils", "reportbug"),
    *("traceroute", "vim", "psmisc", "tcpdump", "ca-certificates", "curl", "ethtool", "uuid-runtime", "screen"),
    "xz-utils",
)
_TIMEOUT_S = 3600.0
_DISK = "3G"


def make_cloud(image: Path, suite: str, mirror: str) -> None:
    """A disk with the root of the equivalent of a genericcloud image; `image`'s directory is the place to work in."""
    tree = image.with_suffix(".tree")
    alone = [] if os.geteuid() == 0 else ["mmdebstrap", "--unshare-helper"]
    mode = "unshare" if alone else "root"
    what: list[str | Path] = [f"--include={','.join(_CLOUD)}", suite, tree, *([mirror] if mirror else [])]
    process.run(["mmdebstrap", f"--mode={mode}", "--variant=minbase", *what], timeout_s=_TIMEOUT_S)
    process.run([*alone, "mke2fs", "-q", "-t", "ext4", "-d", tree, image, _DISK], timeout_s=_TIMEOUT_S)
    process.run([*alone, "rm", "-r", tree], timeout_s=_TIMEOUT_S)


def measured(image: Path) -> tuple[float, float]:
    """What an image takes on the disk, and as zstd -3; in bytes."""
    with image.open("rb") as file:
        packed = subprocess.Popen(["zstd", "-3", "-c", "-q"], stdin=file, stdout=subprocess.PIPE)
        assert packed.stdout is not None
        size = 0
        while block := packed.stdout.read(2**20):
            size += len(block)
        packed.wait()
    return image.stat().st_blocks * 512.0, float(size)


def main() -> None:
    shape, _ = bench.machine()
    suite, mirror = shape.base.manifest.suite, Config().images.mirror
    with bench.workplace() as place:
        place.chmod(0o777)  # mmdebstrap may work as another user
        make_cloud(place / "cloud.img", suite, mirror)
        found = {"(a) equivalent of Debian's genericcloud root": measured(place / "cloud.img")}
        if process.find("debvm-create"):
            stock.make(place / "debvm.img", suite, mirror)
            found["(b) debvm-create's disk"] = measured(place / "debvm.img")
        else:
            print("debvm is not installed: not compared with")
        ours = f"root of {shape.base.name}, {shape.base.root.stat().st_size // 2**20} MiB apparent"
        found[ours] = measured(shape.base.root)
    for number, title in enumerate(("on the disk", "as zstd -3")):
        lines = [Line(name, [sizes[number]], "half of each" if name == ours else "") for name, sizes in found.items()]
        bench.print_table(f"size of the base image, {title}", lines, "MiB", 2.0**-20)


if __name__ == "__main__":
    main()
