"""How a runner is stopped: what tells it, what may be broken off, and how long the jobs that run have then.

And who is told how it does.
"""

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from construir_ftp.runner.slot import Slot

log = logging.getLogger("construir.runner")

_LOOK_S = 0.1
# How long a slot may take to end after its machine was killed.
_LAST_S = 10.0


class Stop(NamedTuple):
    """`told` is readable once the runner is to stop. What takes long, and may be broken off, is done within
    `interrupting`, which may raise what is no Exception. Who `is_orphan` has nobody left who waits for its jobs.
    """

    told: socket.socket
    interrupting: Callable[[], AbstractContextManager[None]] = nullcontext
    is_orphan: Callable[[], bool] = lambda: False


def _nothing() -> None:
    pass


class Watch(NamedTuple):
    """Who has started the runner, and is to be told when it is `ready`, and that it is `alive`, as often as that."""

    ready: Callable[[], None] = _nothing
    alive: Callable[[], None] = _nothing
    alive_every_s: float = math.inf


UNWATCHED = Watch()


def drain(slots: Sequence[Slot], grace_s: float, stop: Stop) -> None:
    """End slots: their jobs have the grace, unless the appliance was killed; then their machines are killed."""
    for slot in slots:
        slot.end()
    deadline_s = time.monotonic() + grace_s
    for slot in slots:
        while slot.lives and time.monotonic() < deadline_s and not stop.is_orphan():
            slot.join(_LOOK_S)
    for slot in slots:
        slot.kill()
    for slot in slots:
        slot.join(_LAST_S)
        if slot.lives:  # it waits for a program outside of any jail; all others end with this process
            log.error("a slot does not end; its job goes back into the queue at the next start")
            logging.shutdown()
            os._exit(1)
        slot.close()
