"""The uids of jails: each its own, out of a range that belongs to nobody, for as long as it lasts.

A uid is taken by a lock on a file in /run, which every appliance on the host goes by and the kernel drops when
its holder dies. The user namespace of root's jails knows these uids, root, and nobody else.
"""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from construir_ftp import process
from construir_ftp.errors import ConstruirError

_LOCKS = Path("/run/construir-uids")
_OTHERS_READ_WRITE = 0o006


@contextmanager
def lease(uids: range) -> Iterator[int]:
    """A uid that nobody else has meanwhile; its gid is the same number. Raises ConstruirError when all are taken."""
    _LOCKS.mkdir(mode=0o700, exist_ok=True)
    for uid in uids:
        lock = os.open(_LOCKS / str(uid), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        try:
            yield uid
        finally:
            os.close(lock)
        return
    raise ConstruirError(f"all {len(uids)} uids from {uids.start} on are taken by jails; configure more of them")


def are_mapped(uids: range) -> bool:
    """Whether processes here can have these uids: in a container with a user namespace most don't exist."""
    lines = [[int(word) for word in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return any(first <= uids.start and uids.stop <= first + count for first, _, count in lines)


def groups(devices: tuple[Path, ...]) -> list[int]:
    """The groups somebody has to be in to use these devices (/dev/kvm: kvm), root's never."""
    found = [path.stat() for path in devices if path.exists()]
    return sorted({entry.st_gid for entry in found if entry.st_mode & _OTHERS_READ_WRITE != _OTHERS_READ_WRITE} - {0})


def namespace(uids: range, gids: list[int]) -> int:
    """A new user namespace with root, these uids and their gids, and `gids`; every number is what it is outside.

    Returns a descriptor, which keeps it. For root. Raises ConstruirError or OSError where it can't be made.
    """
    argv = ["unshare", "--user", "--", "sh", "-c", "echo; read -r _"]
    with process.spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as holder:
        if not cast(IO[bytes], holder.stdout).readline():
            raise ConstruirError(cast(IO[bytes], holder.stderr).read().decode(errors="replace").strip())
        same = [(0, 1), (uids.start, len(uids))]
        for name, ranges in (("uid_map", same), ("gid_map", [*same, *((gid, 1) for gid in gids)])):
            lines = "".join(f"{first} {first} {count}\n" for first, count in ranges)
            Path(f"/proc/{holder.pid}/{name}").write_text(lines)
        return os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
