"""A fresh Debian with systemd, as a volunteer's computer has it: its files, for the package to be installed on.

Made once for each release of Debian and each change of what is in it, in the cache of whoever runs the tests; by root
alone. python -m tests.support.computer SUITE...
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from construir_ftp import files

SUITES = ("bookworm", "trixie")
# What the package depends on is there, so that it can be installed without a network.
_PACKAGES = """
    bubblewrap bzip2 curl dbus e2fsprogs libmagic1 libpam-systemd lz4 openssl python3 qemu-system-x86 squashfs-tools
    systemd-sysv udev uidmap xz-utils zstd
"""
_BUILD_S = 1800


def tree(suite: str) -> Path:
    """The directory with its files, made now if it is not there; nobody changes anything in it."""
    digest = hashlib.sha256(_PACKAGES.encode()).hexdigest()[:16]
    place = _cache() / f"{suite}-{digest}"
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_name(f"{suite}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            _make(suite, place)
    return place


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "construir-tests"


def _make(suite: str, place: Path) -> None:
    for old in place.parent.glob(f"{suite}-*"):  # of another recipe
        files.remove(old)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".") as name:
        draft = Path(name) / "tree"
        argv: list[str | Path] = ["mmdebstrap", "--quiet", "--variant=minbase", "--format=directory"]
        argv += [f"--include={','.join(_PACKAGES.split())}", '--aptopt=APT::Install-Recommends "false"']
        subprocess.run([*argv, suite, draft], check=True, timeout=_BUILD_S)
        draft.rename(place)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(tree(name))
