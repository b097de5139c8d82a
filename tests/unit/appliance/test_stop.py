"""supervisor: a stop that interrupts, wherever it comes."""

import logging
import os
import signal
import threading
import time

from construir_ftp.appliance import supervisor

_LONG_S = 60


def test_a_stop_ends_what_takes_long() -> None:
    with supervisor.listening() as stop:
        with stop.interrupting():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(_LONG_S)
        raise AssertionError("it went on")


def test_a_stop_that_comes_while_a_lock_is_held_leaves_it_to_others() -> None:
    log, went_on = logging.getLogger("stopped"), threading.Event()

    class StopsHere(logging.Filter):
        def filter(self, _record: logging.LogRecord) -> bool:
            os.kill(os.getpid(), signal.SIGTERM)
            return bool(sum(range(1000)))

    log.addFilter(StopsHere())
    before_s = time.monotonic()
    with supervisor.listening() as stop, stop.interrupting():
        log.warning("a line")
        went_on.set()
        while time.monotonic() < before_s + _LONG_S:
            time.sleep(0.01)
    assert went_on.is_set(), "it was not broken off within logging"
    assert time.monotonic() < before_s + _LONG_S, "but soon after it"
