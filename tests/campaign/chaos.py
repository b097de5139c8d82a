"""What goes wrong meanwhile, one thing after another, as a seed decides."""

import itertools
import logging
import random
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from tests.campaign import processes
from tests.campaign.world import World
from tests.support.appliance import Appliance
from tests.support.farm import LEASE_S, Node

log = logging.getLogger("campaign")

# How long strace(1) waits for the call it is to spoil, how long a part stands still, between two acts: seconds.
_TRACE_S = 3.0
_STILL_S = (0.2, 4.0)
_PAUSE_S = (0.5, 4.0)
# How long an earlier release runs.
_RELEASE_S = (2.0, 10.0)
_CALLS = ("fsync", "rename", "renameat2", "link", "unlink", "unlinkat", "write", "sendmsg", "sendto", "mkdir", "openat")
_ERRORS = {
    "ENOSPC": ("write", "openat", "mkdir", "fsync"),
    "EIO": ("write", "read", "fsync", "rename", "unlink"),
    "EMFILE": ("openat", "socket", "accept4", "pipe2"),
    "ENOMEM": ("openat", "mmap", "clone3"),
}


def _name(act: Callable[[], str]) -> str:
    return act.__name__.removeprefix("_").replace("_", " ")


class Chaos(threading.Thread):
    """Harms an appliance until it is told to stop, or has done so much, and mends what does not mend itself."""

    def __init__(self, seed: str, world: World, most_acts: int | None, stop: threading.Event) -> None:
        super().__init__(name="chaos")
        self._random = random.Random(f"{seed} chaos")
        self._world, self._most_acts, self._is_over = world, most_acts, stop
        self._appliance, self._nodes = world.appliance, world.nodes
        self.done: Counter[str] = Counter()
        self.failure: BaseException | None = None

    def run(self) -> None:
        """One act after another."""
        try:
            for act in itertools.islice(self._acts(), self._most_acts):
                if self._is_over.wait(self._random.uniform(*_PAUSE_S)):
                    return
                self.revive_nodes()
                what = act()
                self.done[_name(act)] += bool(what)
                log.info("%s: %s", _name(act), what or "nobody there")
        except BaseException as error:
            self.failure = error
            raise

    def _acts(self) -> Iterator[Callable[[], str]]:
        """Without end: all there are, each as often as it counts, in an order of chance; and again."""
        often: dict[Callable[[], str], int] = {
            self._kill_part: 3, self._kill_below: 2, self._kill_at_call: 3, self._fail_call: 4, self._stand_still: 2,
            self._kill_all: 1, self._cut_power: 1, self._fill_disk: 1, self._make_ghost: 1, self._damage_image: 2,
            self._take_no_news: 1, self._change_release: 1, self._fill_temporary_files: 1,
        }  # fmt: skip
        if self._world.clock is not None:
            often[self._set_clock] = 3
        while True:
            yield from self._random.sample(list(often), sum(often.values()), counts=list(often.values()))

    def revive_nodes(self) -> None:
        """Start the nodes again that have ended, which nobody else does."""
        for node in self._nodes:
            if node.process is None or node.process.poll() is not None:
                node.launch()

    @property
    def _main(self) -> int:
        assert self._appliance.process is not None
        return self._appliance.process.pid

    @property
    def _far(self) -> dict[str, int]:
        """The pids of the nodes that live, by name: that of one that has ended may be a stranger's by now."""
        found = {node.name: node.process for node in self._nodes}
        return {name: process.pid for name, process in found.items() if process is not None and process.poll() is None}

    @property
    def _roots(self) -> list[int]:
        return [self._main, *self._far.values()]

    def _everything(self) -> list[int]:
        return [pid for root in self._roots for pid in processes.descendants(root)]

    def _part(self) -> tuple[str, int] | None:
        """One of the living parts, the nodes among them; those that do the work more often."""
        parts = sorted({**self._appliance.parts(), **self._far}.items())
        weights = [4 if name in ("ftp", "runner", *self._far) else 1 for name, _ in parts]
        return self._random.choices(parts, weights)[0] if parts else None

    def _kill_part(self) -> str:
        if (part := self._part()) is None:
            return ""
        processes.send([part[1]], signal.SIGKILL)
        return part[0]

    def _kill_below(self) -> str:
        """A judge, a machine, a jail: what a part has started."""
        parts = {*self._roots, *self._appliance.parts().values()}
        below = [pid for pid in self._everything() if pid not in parts]
        if not below:
            return ""
        victim = self._random.choice(below)
        name = " ".join(processes.words(victim)[:2])[:60]
        processes.send([victim], signal.SIGKILL)
        return name

    def _kill_at_call(self) -> str:
        call, nth = self._random.choice(_CALLS), self._random.randint(1, 8)
        return self._inject(call, f"signal=KILL:when={nth}")

    def _fail_call(self) -> str:
        name = self._random.choice(list(_ERRORS))
        return self._inject(self._random.choice(_ERRORS[name]), f"error={name}:when={self._random.randint(1, 5)}")

    def _inject(self, call: str, fault: str) -> str:
        """Spoil one call of a part, if it makes it in time."""
        if (part := self._part()) is None:
            return ""
        argv = ["strace", "-f", "-qq", "-e", "signal=none", "-o", "/dev/null", "-p", str(part[1])]
        argv += ["-e", f"trace={call}", "-e", f"inject={call}:{fault}"]
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as tracer:
            with suppress(subprocess.TimeoutExpired):
                tracer.wait(_TRACE_S)
            tracer.terminate()
            # To let go of a thread in vfork(2) it waits for ever: the child, which it has stopped, can't go on.
            with suppress(subprocess.TimeoutExpired):
                tracer.wait(_TRACE_S)
            tracer.kill()
        if part in {**self._appliance.parts(), **self._far}.items():  # else its pid may be a stranger's by now
            processes.send(processes.descendants(part[1]), signal.SIGCONT)
        return f"{part[0]}, {call}:{fault}"

    def _stand_still(self) -> str:
        if (part := self._part()) is None:
            return ""
        processes.send([part[1]], signal.SIGSTOP)
        still_s = self._wait()
        processes.send([part[1]], signal.SIGCONT)
        return f"{part[0]}, {still_s:.1f} s"

    def _kill_all(self) -> str:
        everything = self._everything()
        processes.send(self._roots, signal.SIGKILL)
        self._end(everything)
        self._appliance.start()
        return f"{len(everything)} processes"

    def _make_ghost(self) -> str:
        """A node stands still for longer than its lease, and comes back."""
        if not self._far:
            return ""
        name, pid = self._random.choice(sorted(self._far.items()))
        processes.send([pid], signal.SIGSTOP)
        self._is_over.wait(LEASE_S + self._random.uniform(*_STILL_S))
        processes.send([pid], signal.SIGCONT)
        return name

    def _cut_power(self) -> str:
        everything = [pid for root in self._roots for pid in processes.stop_all(root)]
        self._world.disk.copy()
        processes.send(everything, signal.SIGKILL)
        self._end(everything)
        self._world.disk.come_back()
        self._appliance.start()
        return f"{len(everything)} processes"

    def _end(self, everything: list[int]) -> None:
        for process in (self._appliance.process, *(node.process for node in self._nodes)):
            assert process is not None
            process.wait()
        processes.gone(everything)

    def _fill_disk(self) -> str:
        return self._fill(self._world.disk.root)

    def _fill_temporary_files(self) -> str:
        """The tmpfs that the appliance has for them is full."""
        return self._fill(self._world.temporary.root)

    def _fill(self, place: Path) -> str:
        filler = place / "filler"
        written = 0
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(2**20)):
                written += 1
        self._wait()
        filler.unlink(missing_ok=True)
        return f"{written} MiB"

    def _damage_image(self) -> str:
        """For a while, in which a part may be killed, too, that has to find the image damaged when it starts."""
        what = self._world.images.damage(self._random)
        self._wait()
        if self._random.random() < 0.5:
            what += f"; killed: {self._kill_part()}"
            self._wait()
        self._world.images.mend()
        return what

    def _take_no_news(self) -> str:
        """The servers for mail and for the webhook say that they are busy."""
        self._world.news.refuse(True)
        still_s = self._wait()
        self._world.news.refuse(False)
        return f"{still_s:.1f} s"

    def _set_clock(self) -> str:
        assert self._world.clock is not None
        return self._world.clock.jump(self._random)

    def _change_release(self) -> str:
        """Some of the appliance and its nodes run as an earlier release for a while, and then as today's again.

        Nothing else goes wrong meanwhile: what an earlier release did not outlive is no fault of today's.
        """
        earlier = self._world.releases.choose(self._random)
        changed = self._random.sample(self._world.programs, self._random.randint(1, len(self._world.programs)))
        if not earlier:
            return ""
        for one in changed:
            self._start_as(one, earlier)
        self._wait(_RELEASE_S)
        for one in changed:
            self._start_as(one, "")
        return f"{earlier}: {', '.join(one.log.stem for one in changed)}"

    def _start_as(self, one: Appliance | Node, release: str) -> None:
        assert one.process is not None
        everything = processes.descendants(one.process.pid)
        one.stop()
        processes.gone(everything)
        one.program = self._world.program(release)
        if isinstance(one, Appliance):
            one.start()
        else:
            one.launch()

    def _wait(self, between_s: tuple[float, float] = _STILL_S) -> float:
        """For as long as the seed says, but no longer than it is to go on; returns how long."""
        still_s = self._random.uniform(*between_s)
        self._is_over.wait(still_s)
        return still_s
