"""Memory for machines that are larger than usual: each slot has room for a usual one, and this is what they share."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOOK_S = 0.5


class Spare:
    """So many bytes, lent in the order of asking to whoever fits. Safe to use from several threads."""

    def __init__(self, size_bytes: int) -> None:
        self._free_bytes = size_bytes
        self._changed = threading.Condition()

    @contextmanager
    def lend(self, wanted_bytes: int, is_over: Callable[[], bool]) -> Iterator[bool]:
        """Wait until there are so many bytes, which are ours for as long as the context lasts; false if `is_over` says
        that nobody needs them any more. More than there can ever be is never had: ask for no more than was offered.
        """
        with self._changed:
            while wanted_bytes > self._free_bytes:
                if is_over():
                    yield False
                    return
                self._changed.wait(_LOOK_S)
            self._free_bytes -= wanted_bytes
        try:
            yield True
        finally:
            with self._changed:
                self._free_bytes += wanted_bytes
                self._changed.notify_all()
