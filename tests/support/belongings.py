"""What a process has: open descriptors, threads, children. What a test leaves behind is what was not there before.

Compared is what has come, never what has gone: a descriptor, a thread or a child that was just ending when the test
began is nobody's fault. What has come is waited for, since the end of a thread, or of a process, takes its time; and
sockets that the ssl module left to the garbage collector are collected.
"""

import gc
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

LONG_S = 60.0
# The pools of a server that runs: each starts a thread when there is work, until it has as many as it may.
POOLS = ("thread check", "thread password", "thread quick", "thread read", "thread flush")


class Belongings(NamedTuple):
    """Descriptors by what they are open on, threads by their names, children by their pids."""

    descriptors: Counter[str]
    threads: Counter[str]
    children: Counter[str]

    @classmethod
    def now(cls) -> Self:
        """Those of this process."""
        return cls(
            descriptors(), Counter(thread.name for thread in threading.enumerate()), Counter(map(str, children()))
        )

    def since(self, before: "Belongings") -> list[str]:
        """What was not there before, in words."""
        kinds = ("descriptor of", "thread", "child")
        pairs = zip(kinds, self, before, strict=True)
        return [f"{kind} {name}" for kind, ours, theirs in pairs for name in (ours - theirs).elements()]


def descriptors(process: int | str = "self") -> Counter[str]:
    """What a process has open: files by their paths, sockets and pipes by their numbers."""
    found: Counter[str] = Counter()
    for entry in Path(f"/proc/{process}/fd").iterdir():
        with suppress(OSError):  # the directory that is being read, and what is closed meanwhile
            found[str(entry.readlink())] += 1
    return found


def children() -> list[int]:
    """Every child process of this one, by pid, oldest first."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # the thread has ended meanwhile
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return sorted(found)


def nothing_since(before: Belongings, what: str = "", allowed: tuple[str, ...] = ()) -> None:
    """Wait until all that has come since then is gone again; fail after LONG_S. What begins with one of `allowed` may
    stay.
    """
    deadline = time.monotonic() + LONG_S
    while left := [one for one in Belongings.now().since(before) if not one.startswith(allowed or "-")]:
        gc.collect()
        assert time.monotonic() < deadline, f"left {what}: {', '.join(left)}"
        time.sleep(0.005)
