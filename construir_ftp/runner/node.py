"""A node: what a runner is to others. It says that it lives, and notices when that was not believed.

The appliance's own, "local", is the front as well: it holds the spool's lock, hears the bell and judges the others.
"""

import functools
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from construir_ftp.config import TrustSection
from construir_ftp.errors import ConstruirError
from construir_ftp.jobs import inquiry, ipc, nodes, places, service
from construir_ftp.jobs.nodes import Offered, Pulse
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.jobs.status import RunnerReport
from construir_ftp.runner import bell
from construir_ftp.runner.fit import Fit
from construir_ftp.runner.front import Front
from construir_ftp.runner.withdrawal import Withdrawal
from construir_ftp.surroundings import NodesSection
from construir_ftp.trust import node_key
from construir_ftp.trust.seal import Seal

log = logging.getLogger("construir.runner")

# So often a node looks for work, whatever its bell says.
_LOOK_S = 1.5
# How long it waits for the end of an earlier node of its name, whose computer may have died.
_PATIENCE_S = 150.0
# So often it looks whether it still has what it offers.
_OFFER_S = 10.0


class Node:
    """One start of it. `spool` takes jobs in its name."""

    def __init__(self, spool: Spool, name: str, section: NodesSection, scan_every_s: float) -> None:
        self.name, self._spool, self._section = name, spool, section
        self.is_front = name == places.LOCAL
        self.scan_every_s = scan_every_s if self.is_front else min(scan_every_s, _LOOK_S)
        self.is_lost = False
        self._withdrawal = Withdrawal(spool, scan_every_s)
        self.fit = Fit(spool, name)
        self._count = 0
        self._reported: RunnerReport | None = None
        self._offered: Offered | None = None
        self._offer_at_s = float("-inf")

    def seal(self, section: TrustSection) -> Seal:
        """What its results are signed with: the appliance's key, or one of its own. Raises ConstruirError."""
        path = self._spool.path
        return Seal.of(path, section) if self.is_front else Seal.of_node(path, section, self.name)

    @contextmanager
    def hold(self) -> Iterator[socket.socket]:
        """Be this node; gives what becomes readable when there is work. Raises ConstruirError where another is."""
        path = self._spool.path
        with ExitStack() as stack:
            if self.is_front:
                stack.enter_context(self._spool.lock())
            stack.enter_context(nodes.hold(path, self.name, 0.0 if self.is_front else _PATIENCE_S))
            stack.callback(self._spool.claims.close)
            if self.is_front:
                yield stack.enter_context(self._spool.listen())
            else:
                yield stack.enter_context(bell.of(self._spool.state("queue")))

    @contextmanager
    def living(self, tell: Callable[[], object], seal: Seal) -> Iterator[None]:
        """Say all the time, in a thread of its own, that it lives; `tell` is called once its jobs were taken.

        If it is the front, it certifies the keys of nodes that the configuration admits.
        """
        path, section = self._spool.path, self._section
        admit = functools.partial(node_key.admit_by_rule, path, section.admit, seal.key, seal.host)
        over = threading.Event()
        self._beat()
        thread = threading.Thread(target=self._beat_until, args=(over, tell), name="node")
        thread.start()
        try:
            with ExitStack() as stack:
                if self.is_front:
                    stack.enter_context(Front(path, section.lease, admit).judging())
                yield
        finally:
            over.set()
            thread.join()
            nodes.leave(self._spool.path, self.name)

    def _beat_until(self, over: threading.Event, tell: Callable[[], object]) -> None:
        has_failed = False
        while not over.wait(self._section.renew):
            try:
                if self.look_lost():
                    tell()
                    return
                self._beat()
                has_failed = False
            except OSError as error:
                if not has_failed:
                    log.warning("node %s can't say that it lives: %s", self.name, error)
                has_failed = True

    def _beat(self) -> None:
        self._count += 1
        holding = self._spool.claims.path.name
        nodes.beat(self._spool.path, self.name, Pulse(holding=holding, count=self._count, load=nodes.load()))

    def look_lost(self) -> bool:
        """Whether its jobs were taken from it: it is to end all that it does, and to start anew."""
        if not self.is_lost and self._spool.claims.are_lost():
            log.error(
                "node %s has been silent for too long: its jobs were given to others, and it starts anew", self.name
            )
            self.is_lost = True
        return self.is_lost

    # -- what it says, and hears ---------------------------------------------------------------------------------

    def report(self, report: RunnerReport) -> None:
        """Let everyone know what is going on here, if it has changed; see status."""
        if report != self._reported:
            inquiry.tell(self._spool, report, self.name)
            self._reported = report

    def offer(self, what: Callable[[], Offered]) -> None:
        """Let everyone know what can be had here, if it has changed: now and then, since images have to be read."""
        now_s = time.monotonic()
        if now_s < self._offer_at_s:
            return
        if not self._is_believed():  # which may change at any moment: it is looked at each time
            self._offered = None
            nodes.withdraw(self._spool.path, self.name)
            return
        self._offer_at_s = now_s + _OFFER_S
        try:
            offered = what()
        except (ConstruirError, OSError) as error:  # it is said when there is a job
            log.debug("what can be had here is not known: %s", error)
            return
        if offered != self._offered:
            nodes.offer(self._spool.path, self.name, offered)
            self.fit.settle(offered)
            if other := nodes.other_name(self._spool.path, self.name, offered):
                log.warning("%s", other)
            self._offered = offered

    def takes_jobs(self) -> bool:
        """Whether the operator lets it, and what it signs is believed."""
        path = self._spool.path
        is_let = service.read(path).takes_jobs and not nodes.why_drained(path, self.name)
        return is_let and self._is_believed()

    def _is_believed(self) -> bool:
        return self.is_front or not node_key.why_not(self._spool.path, self.name)

    def hear(self, datagram: bytes = ipc.CANCELLED) -> None:
        """What the bell says, or what it would."""
        self._withdrawal.hear(datagram)

    def withdrawn(self) -> list[Job]:
        """The waiting jobs that are to be cancelled: the front's business."""
        return self._withdrawal.take() if self.is_front else []
