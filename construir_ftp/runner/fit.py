"""Which waiting jobs a node takes: those that it has the machine for, and that no other node is to have first.

A job of another architecture is left to a node whose own that is, while one lives and has a slot free, but not for
long. A job that fits on no node that is known is the appliance's own node's, which tells it why.
"""

import functools
import time

from construir_ftp.errors import RefusedError
from construir_ftp.jobs import inquiry, nodes, places, request
from construir_ftp.jobs.job import Record, Wants
from construir_ftp.jobs.nodes import Offered
from construir_ftp.jobs.request import Wishes
from construir_ftp.jobs.spool import Spool

# So long a job is left to a node that is quicker at it.
_LEFT_S = 20.0


class Fit:
    """Of one node."""

    def __init__(self, spool: Spool, name: str) -> None:
        self._spool, self._name = spool, name
        self._offered: Offered | None = None
        # By construir.toml and size of image: since when such a job is left to others.
        self._left: dict[tuple[str, int], float] = {}

    def settle(self, offered: Offered) -> None:
        """What can be had here, from now on."""
        self._offered = offered

    def of(self, wants: Wants) -> Wants:
        """Those of the wanted jobs that it is to take now."""
        others = self._others()
        return lambda record: wants(record) and self._takes(record, others)

    def _others(self) -> dict[str, Offered]:
        living = [name for name in nodes.living(self._spool.path) if name != self._name]
        found = {name: nodes.offered(self._spool.path, name) for name in living}
        return {name: offered for name, offered in found.items() if offered is not None}

    def _takes(self, record: Record | None, others: dict[str, Offered]) -> bool:
        is_local = self._name == places.LOCAL
        if is_local and not others and len(nodes.names(self._spool.path)) < 2:
            return True
        wanted = _wishes(record.construir_toml) if record else None
        if record is None or wanted is None or self._offered is None:
            return is_local
        size_bytes = record.image_bytes
        if nodes.why_not(self._offered, wanted, size_bytes):
            # One that has gone may come back: it is waited for until it is forgotten.
            known = nodes.names(self._spool.path) if is_local else ()
            return is_local and not any(nodes.suits(self._spool.path, name, wanted, size_bytes) for name in known)
        base = wanted.base_name(self._offered.default_base)
        if not is_local and nodes.has_another_image(base, self._offered, others.get(places.LOCAL)):
            return False
        return not self._is_left(record, wanted, others)

    def _is_left(self, record: Record, wanted: Wishes, others: dict[str, Offered]) -> bool:
        assert self._offered is not None
        if not _emulates(self._offered, wanted) or not any(
            self._is_quicker(name, other, wanted, record.image_bytes) for name, other in others.items()
        ):
            return False
        now_s, kind = time.monotonic(), (record.construir_toml, record.image_bytes)
        if now_s - self._left.get(kind, float("-inf")) > 2 * _LEFT_S:
            self._left[kind] = now_s
        return now_s - self._left[kind] < _LEFT_S

    def _is_quicker(self, name: str, other: Offered, wanted: Wishes, image_bytes: int) -> bool:
        if _emulates(other, wanted) or not nodes.suits(self._spool.path, name, wanted, image_bytes):
            return False
        report = inquiry.of_node(self._spool, name)
        is_free = len(report.busy) < report.slots and not (report.pause or report.paused)
        return is_free and not nodes.why_drained(self._spool.path, name)


def _emulates(offered: Offered, wanted: Wishes) -> bool:
    return offered.bases[wanted.base_name(offered.default_base)].architecture != offered.architecture


@functools.lru_cache(maxsize=4096)
def _wishes(construir_toml: str) -> Wishes | None:
    """What a job asks for; None if that can't be read, as of an older version: it is told so when it runs."""
    try:
        return request.read(construir_toml)
    except RefusedError:
        return None
