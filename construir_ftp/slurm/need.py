"""How many pilots are wanted: a matter of what waits, what is free, and what is on its way."""

import math
from collections import Counter
from typing import NamedTuple

from construir_ftp.errors import RefusedError
from construir_ftp.jobs import inquiry, nodes, request
from construir_ftp.jobs.nodes import Offered
from construir_ftp.jobs.spool import Spool


class Node(NamedTuple):
    """What a node that lives says of itself: how many jobs it could take yet, and whether it has none."""

    free: int
    is_idle: bool


class Need(NamedTuple):
    """Numbers of jobs: what waits, what nodes that live could take at once, what pilots on their way could."""

    waiting: int
    free: int
    coming: int

    def more(self, jobs_per_pilot: int) -> int:
        """How many pilots more are wanted."""
        return math.ceil(max(0, self.waiting - self.free - self.coming) / jobs_per_pilot)

    def too_many(self, jobs_per_pilot: int) -> int:
        """How many of those on their way nobody waits for."""
        spare = self.free + self.coming - self.waiting
        return max(0, min(self.coming, spare)) // jobs_per_pilot


def waiting(spool: Spool, offered: Offered | None = None) -> int:
    """How many jobs could run at once, were there pilots for them: all that wait, but for those that depend on one that
    has not ended, and those that ask for what pilots don't have. What these have, `offered`, one of them has said.
    """
    queue, running = spool.records("queue"), spool.records("running")
    unfinished = queue.keys() | running.keys()
    ready = [record for record in queue.values() if record is None or unfinished.isdisjoint(record.after)]
    kinds = Counter((record.construir_toml, record.image_bytes) if record else ("", 0) for record in ready)
    return sum(count for kind, count in kinds.items() if offered is None or _suits(offered, *kind))


def _suits(offered: Offered, construir_toml: str, image_bytes: int) -> bool:
    try:
        return not nodes.why_not(offered, request.read(construir_toml), image_bytes)
    except RefusedError:  # the appliance's own node tells it so
        return False


def nodes_of(spool: Spool) -> dict[str, Node] | None:
    """The nodes that live, by their names; None while nobody knows which do."""
    living = nodes.living(spool.path)
    return {name: _node(spool, name) for name in living} if living else None


def _node(spool: Spool, name: str) -> Node:
    report = inquiry.of_node(spool, name)
    takes_jobs = not (report.pause or report.paused or nodes.why_drained(spool.path, name))
    free = max(0, report.slots - len(report.busy)) if takes_jobs else 0
    return Node(free, is_idle=report.slots > 0 and not report.busy)
