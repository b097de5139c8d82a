"""A file system that two hosts share: an NFS server of the kernel's, and two clients of it that know nothing of each
other.

The kernel here may know no NFS. So a user-mode kernel of Debian's is started as an ordinary program, without a network.
It has this host's files for its own, over which it writes in memory; the server, and each client, in a network of its
own, are set up by nfs_guest. What is shared is an ext4 on a disk of its own. The clients keep the attributes of files
and directories for as long as they do by default (nfs(5), DATA AND METADATA COHERENCE).

A test of the suite that is marked by `inside` is run there, in a process of its own.
"""

import io
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.places import PROJECT

PROGRAMS = PROJECT / ".venv" / "programs"
_KERNEL = PROGRAMS / "usr/bin/linux.uml"
_MEMORY = "2G"
_DISK_BYTES = 4 * 2**30
_BOOT_S, _CHECK_S = 300, 600

# What is checked there: with the shared directory as each of the two hosts sees it, and words.
Check = Callable[..., None]


class Checks(NamedTuple):
    """The machine that both hosts are."""

    process: "subprocess.Popen[bytes]"
    wire: io.BufferedRWPair
    log: Path

    def run(self, check: Check, *words: str) -> None:
        """Have it run there. Raises AssertionError with what it said, if it failed."""
        self.wire.write(f"{' '.join((f'{check.__module__}:{check.__name__}', *words))}\n".encode())
        self.wire.flush()
        problem = self._answer()
        assert not problem, problem

    def wait(self) -> None:
        """Until it is there."""
        problem = self._answer()
        assert not problem, problem

    def _answer(self) -> str:
        try:
            line = self.wire.readline()
        except TimeoutError:
            line = b""
        if not line:
            return f"the machine gave no answer; it said: {self.log.read_text(errors='replace')[-5000:]}"
        return str(json.loads(line))


def inside(check: Check) -> Callable[[Checks], None]:
    """A test that is run by both hosts, as functions of the test's own module are."""

    def test(both_hosts: Checks) -> None:
        both_hosts.run(check)

    test.__name__, test.__doc__, test.__module__ = check.__name__, check.__doc__, check.__module__
    test.inside = check  # type: ignore[attr-defined] # for nfs_guest
    return test


@contextmanager
def hosts(place: Path, patience_s: float = _CHECK_S) -> Iterator[Checks]:
    """Two hosts that share a file system, for as long as the context lasts. Skips where there is no such kernel. Each
    check has so long.
    """
    if platform.machine() != "x86_64":
        pytest.skip("Debian has a user-mode kernel for amd64 only")
    assert _KERNEL.exists(), "run: deploy/prepare --tests"
    disk, log = place / "disk", place / "log"
    with disk.open("xb") as file:
        file.truncate(_DISK_BYTES)
    ours, theirs = socket.socketpair()
    with ours, log.open("xb") as output:
        with theirs:
            process = subprocess.Popen(
                _argv(disk, theirs.fileno()), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                pass_fds=[theirs.fileno()], env={**os.environ, "TMPDIR": str(place)},
            )  # fmt: skip
        try:
            ours.settimeout(_BOOT_S)
            with ours.makefile("rwb") as wire:
                machine = Checks(process, wire, log)
                machine.wait()
                ours.settimeout(patience_s)
                yield machine
        finally:
            process.kill()
            process.wait()


def _argv(disk: Path, wire: int) -> list[str]:
    # With the first process of a namespace all of it ends: the kernel's own processes and those of its guest.
    alone = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--pid", "--fork", "--kill-child"]
    alone += [] if os.geteuid() == 0 else ["--map-root-user"]
    kernel = [str(_KERNEL), f"mem={_MEMORY}", f"ubd0={disk}"]
    kernel += [f"ssl0=fd:{wire}", "con=null", "con0=null,fd:1", "ssl=null"]
    root = ["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", "panic=-1", "noreboot"]
    # What the kernel doesn't know itself is the environment of its first process.
    first = [f"PYTHONPATH={PROJECT}", "PYTHONDONTWRITEBYTECODE=1", f"init={sys.executable}"]
    return [*alone, *kernel, *root, *first, "--", "-m", "tests.support.nfs_guest"]
