"""Whose a TCP port is that somebody listens on, as far as the kernel tells this user; see proc_pid_net(5)."""

from collections.abc import Iterator
from pathlib import Path

_LISTENS = "0A"


def has(pid: int, port: int) -> bool:
    """Whether a process, or one that it has started, listens on a port of any address of this computer.

    Where this user may not see what a process has open, the port counts as its own if both are the same user's.
    """
    listening = _listening(port)
    return bool(listening) and any(_has_one(each, listening) for each in _family(pid))


def _listening(port: int) -> dict[str, int]:
    """The sockets that listen on a port, by their inode, and the user of each."""
    found = {}
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            fields = line.split()
            if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                found[fields[9]] = int(fields[7])
    return found


def _has_one(pid: int, listening: dict[str, int]) -> bool:
    try:
        opened = list(Path(f"/proc/{pid}/fd").iterdir())
    except PermissionError:
        return _user(pid) in listening.values()
    except OSError:  # it has ended
        return False
    return any(_inode(descriptor) in listening for descriptor in opened)


def _inode(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]")
    except OSError:  # closed meanwhile
        return ""


def _user(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[2]) for line in lines if line.startswith("Uid:"))


def _family(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            started = children.read_text().split()
        except OSError:
            continue
        for child in started:
            yield from _family(int(child))
