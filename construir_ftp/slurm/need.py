"""How many pilots are wanted: a matter of what waits, what is free, and what is on its way."""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from construir_ftp.errors import RefusedError
from construir_ftp.jobs import inquiry, places, request
from construir_ftp.jobs import nodes as jobs_nodes
from construir_ftp.jobs.nodes import Offered
from construir_ftp.jobs.spool import Spool


class Node(NamedTuple):
    """What a node that lives says of itself: how many jobs it could take yet, and whether it has none."""

    free: int
    is_idle: bool


class Need(NamedTuple):
    """Numbers of jobs: what waits, what of it nodes that live could take at once, what pilots on their way could."""

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


# What a job asks for: its construir.toml, and the size of its image.
Kind = tuple[str, int]


def jobs(spool: Spool, offers: Collection[Offered] = (), front: Offered | None = None) -> Counter[Kind]:
    """The jobs that could run at once, were there pilots for them: all that wait, but for those that depend on one that
    has not ended, and those that ask for what pilots don't have.

    What pilots have, `offers`, some have said; nobody knows, where there are none. On a base image that is not that of
    the `front` none takes a job.
    """
    queue, running = spool.records("queue"), spool.records("running")
    unfinished = queue.keys() | running.keys()
    ready = [record for record in queue.values() if record is None or unfinished.isdisjoint(record.after)]
    kinds = Counter((record.construir_toml, record.image_bytes) if record else ("", 0) for record in ready)
    if not offers:
        return kinds
    return Counter({kind: kinds[kind] for kind in kinds if any(_suits(offered, front, kind) for offered in offers)})


def free(spool: Spool, waiting: Counter[Kind], nodes: Mapping[str, Node]) -> int:
    """How many of these jobs the nodes could take at once: each those that it has the machine for."""
    left, front = Counter(waiting), jobs_nodes.offered(spool.path, places.LOCAL)
    takers = [(node.free, _taken_by(spool, name, waiting, front)) for name, node in nodes.items() if node.free]
    # Who can take the fewest goes first: the others have a choice.
    for slots, kinds in sorted(takers, key=lambda taker: sum(waiting[kind] for kind in taker[1])):
        for kind in kinds:
            taken = min(slots, left[kind])
            left[kind] -= taken
            slots -= taken
    return waiting.total() - left.total()


def _taken_by(spool: Spool, name: str, waiting: Counter[Kind], front: Offered | None) -> list[Kind]:
    offered = jobs_nodes.offered(spool.path, name)
    if offered is None:  # it takes no job yet; but the appliance's own soon will
        return list(waiting) if name == places.LOCAL else []
    return [kind for kind in waiting if _suits(offered, front, kind)]


def _suits(offered: Offered, front: Offered | None, kind: Kind) -> bool:
    try:
        wanted = request.read(kind[0])
    except RefusedError:  # the appliance's own node tells it so
        return False
    base = wanted.base_name(offered.default_base)
    return not (jobs_nodes.why_not(offered, wanted, kind[1]) or jobs_nodes.has_another_image(base, offered, front))


def nodes_of(spool: Spool) -> dict[str, Node] | None:
    """The nodes that live, by their names; None while nobody knows which do."""
    living = jobs_nodes.living(spool.path)
    return {name: _node(spool, name) for name in living} if living else None


def _node(spool: Spool, name: str) -> Node:
    report = inquiry.of_node(spool, name)
    takes_jobs = not (report.pause or report.paused or jobs_nodes.why_drained(spool.path, name))
    free = max(0, report.slots - len(report.busy)) if takes_jobs else 0
    return Node(free, is_idle=report.slots > 0 and not report.busy)
