"""Tests whose subject is a short time: one that fails while the host stood still has shown nothing, and is run again.

A virtual machine can stand still for seconds, and whatever had to come within a part of one is late then. So a thread
watches how late it is itself. What it is late by while this process burns processor time does not count: that is ours.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from _pytest.runner import runtestprotocol

TRIES = 6
_TICK_S = 0.01
# A thread is late by so much on any host. Many small delays are a busy host, which costs a test its time as well.
_USUAL_S = 0.01


class Watch:
    """How long the host has stood still in all, while a thread of ours has looked."""

    def __init__(self) -> None:
        self.stalled_s = 0.0
        self._is_over = threading.Event()

    @classmethod
    @contextmanager
    def kept(cls) -> Iterator["Watch"]:
        """Within, it is looked."""
        watch = cls()
        thread = threading.Thread(target=watch._look, name="steady")
        thread.start()
        try:
            yield watch
        finally:
            watch._is_over.set()
            thread.join()

    def _look(self) -> None:
        while not self._is_over.is_set():
            wall_s, own_s = time.monotonic(), time.process_time()
            self._is_over.wait(_TICK_S)
            late_s = time.monotonic() - wall_s - _TICK_S - (time.process_time() - own_s)
            if late_s > _USUAL_S:
                self.stalled_s += late_s


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Called for each test: run one that is marked `steady` until it passes, or fails on a host that stood still for
    less than that.
    """
    marker = item.get_closest_marker("steady")
    if marker is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for _ in range(TRIES):
        with Watch.kept() as watch:
            reports = runtestprotocol(item, log=False, nextitem=nextitem)
        if watch.stalled_s < marker.args[0] or not any(report.failed for report in reports):
            break
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
