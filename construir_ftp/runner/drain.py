"""How a runner is stopped: what tells it, what may be broken off, and how long the jobs that run have then.

And who is told how it does.
"""

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

from construir_ftp.runner.slot import Slot

log = logging.getLogger("construir.runner")

_LOOK_S = 0.1
# How long a slot may take to end after its machine was killed.
_LAST_S = 10.0
# A base image is proved, and found to work: twice by a trial of an accelerator, which starts two machines each, and by
# an empty machine, which may do the same.
_BOOTS, _PROOF_S = 6, 300.0


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
    """Who has started the runner, and is to be told when it is `ready`, and that it is `alive`, as often as that.

    Within `patient` it may be silent for so many seconds.
    """

    ready: Callable[[], None] = _nothing
    alive: Callable[[], None] = _nothing
    alive_every_s: float = math.inf
    patient: Callable[[float], AbstractContextManager[None]] = lambda _: nullcontext()


UNWATCHED = Watch()


@contextmanager
def making_ready(stop: Stop, watch: Watch, boot_timeout_s: float) -> Iterator[None]:
    """Within, it is seen whether machines come up: it may be broken off, and who watches has patience."""
    with watch.patient(_BOOTS * boot_timeout_s + _PROOF_S), stop.interrupting():
        yield


def drain(slots: Sequence[Slot], grace_s: float, stop: Stop, watch: Watch) -> None:
    """End slots: their jobs have the grace, unless the appliance was killed; then their machines are killed."""
    with watch.patient(grace_s + _LAST_S * len(slots)):
        _end(slots, grace_s, stop)


def _end(slots: Sequence[Slot], grace_s: float, stop: Stop) -> None:
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
