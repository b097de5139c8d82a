"""A computer of a volunteer: Debian with systemd, booted and told what to do as root; nothing of it is ours.

Its kernel is a user-mode one, a process of this host: machines in it need nothing but processor time, as in any
computer, and an emulated computer would take ten times as long. `tree` is its system as files, for a chroot, and `disk`
the same to boot. Both are made once for each release of Debian and each change of their recipe, in the cache of
whoever runs the tests. python -m tests.support.computer SUITE...

Source: Documentation/virt/uml/user_mode_linux_howto_v2.rst.
"""

import base64
import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from construir_ftp.image.baseimage import BaseImage
from tests.support.webservers import PROGRAMS

SUITES = ("bookworm", "trixie")
_KERNEL = PROGRAMS / "usr/bin/linux.uml"
# What a fresh Debian has of it, and what the package depends on: so that it can be installed without a network.
_PACKAGES = """
    bubblewrap bzip2 curl dbus e2fsprogs gpgv libmagic1 libpam-systemd login lz4 openssl passwd python3 qemu-system-x86
    squashfs-tools systemd-sysv udev uidmap xz-utils zstd
"""
_SPARE_MIB = 3072
_BUILD_S = 1800
BOOT_S = 1200
COMMAND_S = 600

_AGENT = """#!/bin/bash
# Does what the first other serial line says: a script in base64 on a line, answered by its status and all it said.
exec 3<>/dev/ttyS1
stty -F /dev/ttyS1 raw -echo
echo "ready" >&3
while read -r script <&3; do
    said=$(base64 -d <<<"$script" | bash 2>&1)
    echo "$? $(base64 -w0 <<<"$said")" >&3
done
"""
_UNIT = """[Unit]
Description=obeys the second serial line
[Service]
ExecStart=/usr/local/sbin/agent
[Install]
WantedBy=multi-user.target
"""
_FSTAB = """/dev/ubda / ext4 defaults 0 1
/dev/ubdb /mnt ext4 nofail 0 0
"""
_CUSTOMIZE = """set -e
cd "$1"
install -m 755 "$PLACE/agent" usr/local/sbin/agent
install -m 644 "$PLACE/agent.service" etc/systemd/system/agent.service
mkdir -p etc/systemd/system/multi-user.target.wants
ln -s ../agent.service etc/systemd/system/multi-user.target.wants/agent.service
cp "$PLACE/fstab" etc/fstab
echo spare >etc/hostname
rm -f etc/resolv.conf var/cache/apt/archives/*.deb
"""


def cache() -> Path:
    """Where what takes long to make is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "construir-tests"


def tree(suite: str) -> Path:
    """The system as files, made now if it is not there; for root alone."""
    recipe = "\n".join((_PACKAGES, _AGENT, _UNIT, _FSTAB, _CUSTOMIZE))
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:16]
    place = cache() / f"{suite}-{digest}"
    place.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{place}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            _make(suite, place)
    return place / "tree"


def disk(suite: str) -> Path:
    """The system as a disk, beside its tree."""
    return tree(suite).with_name("disk.img")


def _make(suite: str, place: Path) -> None:
    for old in place.parent.glob(f"{suite}-*[0-9a-f]"):
        shutil.rmtree(old)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".") as name:
        draft = Path(name)
        draft.chmod(0o755)
        for file, text in (("agent", _AGENT), ("agent.service", _UNIT), ("fstab", _FSTAB), ("customize", _CUSTOMIZE)):
            (draft / file).write_text(text)
        subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--variant=minbase", "--format=directory"),
                f"--include={','.join(_PACKAGES.split())}",
                '--aptopt=APT::Install-Recommends "false"',
                f'--customize-hook=PLACE={draft} sh {draft}/customize "$1"',
                *(suite, draft / "tree"),
            ],
            check=True,
            timeout=_BUILD_S,
        )
        make_disk(draft / "tree", draft / "disk.img", _SPARE_MIB)
        draft.rename(place)
        draft.mkdir()


def make_disk(source: Path, disk: Path, spare_mib: int) -> None:
    """A directory as a disk with an ext4 file system, with so much room beside it."""
    used = subprocess.run(["du", "-sm", source], check=True, capture_output=True, text=True).stdout
    size_mib = int(used.split()[0]) * 5 // 4 + spare_mib
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", source, disk, f"{size_mib}M"], check=True)


def copy_image(base: BaseImage, images: Path) -> None:
    """The version of a base image that is used, alone, in another directory of base images."""
    version = base.path.resolve()
    copy = images / version.relative_to(version.parents[2])
    copy.parent.mkdir(parents=True)
    subprocess.run(["cp", "--archive", "--sparse=always", version, copy], check=True)
    (images / base.name).symlink_to(copy.relative_to(images))


class Computer:
    """One that runs. What it writes is in a file of its own, which lasts as long as `place` does."""

    def __init__(self, suite: str, place: Path, stick: Path) -> None:
        self._suite, self._place, self._stick = suite, place, stick
        self.console = place / "console.log"
        self._machine: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._heard = b""

    @contextmanager
    def on(self) -> Iterator[Self]:
        """Switch it on; when the context is left its power is cut."""
        self.switch_on()
        try:
            yield self
        finally:
            self.cut_power()

    def switch_on(self) -> None:
        """Start it, and wait until it obeys."""
        self._line, theirs = socket.socketpair()
        with theirs, self.console.open("ab") as said:
            self._machine = subprocess.Popen(
                self._argv(theirs.fileno()),
                env={**os.environ, "TMPDIR": str(self._place)},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                pass_fds=[theirs.fileno()],
            )
        self.wait_until_ready()

    def _argv(self, line: int) -> list[str | Path]:
        # All of it ends with the first process of its own, and that with whoever started it.
        alone = ("setpriv", "--pdeathsig", "KILL", "--", "unshare", "--pid", "--fork", "--kill-child")
        return [
            *alone,
            *(_KERNEL, "mem=2500M", f"uml_dir={self._place}", "umid=spare", "panic=-1"),
            # What is written goes into a file of its own, beside which the disk stays as it is.
            *(f"ubda={self._place / 'written'},{disk(self._suite)}", f"ubdb={self._stick}", "root=/dev/ubda", "rw"),
            *("con=null", "con0=null,fd:1", "console=tty0", "systemd.show_status=0"),
            *("ssl=null", f"ssl1=fd:{line},fd:{line}"),
        ]

    def cut_power(self) -> None:
        """End it in the midst of whatever it does."""
        if self._line:
            self._line.close()
        if self._machine:
            self._machine.kill()
            self._machine.wait()
        self._heard = b""

    def wait_until_ready(self) -> None:
        """Wait until it has booted, the first time or again."""
        assert self._hear(BOOT_S) == "ready", self.console.read_text(errors="replace")[-2000:]
        # Nothing in it waits for the stick.
        self.do("systemctl start mnt.mount")

    def try_to(self, script: str, timeout_s: float = COMMAND_S) -> tuple[int, str]:
        """Have root's bash run it; its exit status, and what it said."""
        assert self._line is not None
        self._line.sendall(base64.b64encode(script.encode()) + b"\n")
        status, _, said = self._hear(timeout_s).partition(" ")
        return int(status), base64.b64decode(said).decode(errors="replace").rstrip("\n")

    def do(self, script: str, timeout_s: float = COMMAND_S) -> str:
        """The same, where it has to succeed; what it said."""
        status, said = self.try_to(script, timeout_s)
        assert status == 0, f"{script}: {status}: {said}"
        return said

    def wait_for(self, script: str, timeout_s: float = COMMAND_S, every_s: float = 5.0) -> str:
        """Run it until it succeeds; what it said then."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            status, said = self.try_to(script)
            if status == 0:
                return said
            assert time.monotonic() < deadline_s, f"{script}: {status}: {said}"
            time.sleep(every_s)

    def reboot(self) -> None:
        """Have it boot again, in good order: later, so that this is answered first."""
        self.do("systemd-run --quiet --on-active=30 systemctl reboot")
        self.wait_until_ready()

    def _hear(self, timeout_s: float) -> str:
        assert self._line is not None
        self._line.settimeout(timeout_s)
        while b"\n" not in self._heard:
            piece = self._line.recv(65536)
            assert piece, "it has ended"
            self._heard += piece
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode().strip()


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(tree(name))
