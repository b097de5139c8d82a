"""The front: it judges which nodes of other computers live, and gives back the jobs of those that don't.

A node is silent from when its number was last seen to grow, by the clock of this process alone. Once it has been silent
for the lease it has lost its jobs: each is taken out of its directory, so that it can publish none of them, should it
come back. Nothing here runs a job.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from construir_ftp.jobs import nodes, places
from construir_ftp.jobs.nodes import Pulse
from construir_ftp.jobs.spool import Spool

log = logging.getLogger("construir.front")

_LOOK_S = 1.0
# What a node that went has left is removed after so many leases.
_FORGET_LEASES = 60


class _Heard(NamedTuple):
    """The last number, when it was first seen, and whether one was seen to follow another."""

    number: int
    since_s: float
    has_grown: bool


class Front:
    """Of one spool, whose lock the caller holds."""

    def __init__(self, spool: Path, lease_s: float, admit: Callable[[str], None] = lambda name: None) -> None:
        # What it takes it holds under a name of its own: the jobs of the node "local" are not its business.
        self._spool, self._lease_s = Spool(spool, nodes.FRONT), lease_s
        self._admit = admit
        # By directory in running/.
        self._heard: dict[str, _Heard] = {}
        self._living: list[str] | None = None
        # Since when those that are known do not live.
        self._gone: dict[str, float] = {}
        self._looked_at = float("-inf")

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Look all the time, in a thread of its own, while the context lasts."""
        over = threading.Event()
        thread = threading.Thread(target=self._look_until, args=(over,), name="front")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._spool.claims.close()

    def _look_until(self, over: threading.Event) -> None:
        while True:
            try:
                self.look(time.monotonic())
            except Exception:
                log.exception("the nodes could not be looked at; the next try is in %g s", _LOOK_S)
            if over.wait(_LOOK_S):
                return

    def look(self, now_s: float) -> None:
        """Once, at `now_s` of the monotonic clock."""
        if now_s - self._looked_at > self._lease_s / 2:
            # It was we who stood still, or have just begun: everybody has a whole lease.
            self._heard = {holding: heard._replace(since_s=now_s) for holding, heard in self._heard.items()}
        self._looked_at = now_s
        self._take_up()
        pulses = {name: nodes.pulse(self._spool.path, name) for name in nodes.names(self._spool.path)}
        for name in pulses:
            self._admit(name)
        counts = {pulse.holding: pulse.count for pulse in pulses.values() if pulse is not None}
        holdings = {path.name: path for path in self._of_others()}
        silent = {name for name in (*counts, *holdings) if self._silent_s(name, counts.get(name, -1), now_s) > 0}
        self._judge([name for name, pulse in pulses.items() if pulse and self._lives(pulse.holding, silent)])
        for name in sorted(silent & holdings.keys()):
            self._take_back(holdings[name])
        self._heard = {name: heard for name, heard in self._heard.items() if name in counts or name in holdings}
        self._forget(pulses, now_s)

    def _silent_s(self, holding: str, count: int, now_s: float) -> float:
        """For how long it has been so beyond the lease; at most 0 if it is not."""
        heard = self._heard.get(holding)
        if heard is None or heard.number != count:
            self._heard[holding] = heard = _Heard(count, now_s, has_grown=heard is not None)
        return now_s - heard.since_s - self._lease_s

    def _lives(self, holding: str, silent: set[str]) -> bool:
        return holding not in silent and self._heard[holding].has_grown

    def _of_others(self) -> list[Path]:
        found = places.directories(self._spool.path, "running")
        return [path for path in found if places.node_of(path) not in (places.LOCAL, nodes.FRONT)]

    def _take_up(self) -> None:
        """What this front, or one before it, has taken and could not give back."""
        for path in places.directories(self._spool.path, "running"):
            if places.node_of(path) == nodes.FRONT and (path != self._spool.claims.path or any(path.iterdir())):
                self._spool.take_back(path)

    def _judge(self, living: list[str]) -> None:
        living = [name for name in living if name != places.LOCAL]
        if living == self._living:
            return
        for name in sorted(set(living) - set(self._living or ())):
            log.info("node %s is there", name)
        for name in sorted(set(self._living or ()) - set(living)):
            log.info("node %s is gone", name)
        nodes.judge(self._spool.path, living)
        self._living = living

    def _take_back(self, holding: Path) -> None:
        node = places.node_of(holding)
        for job in self._spool.take_back(holding):
            log.warning("job %s: node %s says nothing any more, back in the queue", job.id, node)
            self._spool.wake()

    def _forget(self, pulses: Mapping[str, Pulse | None], now_s: float) -> None:
        """Remove what is left of nodes that went long ago, and are not expected back."""
        gone = [name for name in pulses if name != places.LOCAL and name not in (self._living or ())]
        self._gone = {name: self._gone.get(name, now_s) for name in gone}
        for name, since_s in self._gone.items():
            is_long = now_s - since_s > _FORGET_LEASES * self._lease_s
            if is_long and not nodes.why_drained(self._spool.path, name):
                nodes.forget(self._spool.path, name)
