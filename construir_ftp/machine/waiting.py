"""Machines that wait for their job, ready to take it: what they are made of.

Where there are templates that is one of these (template); a kind of machine without them boots, as here.
"""

import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from construir_ftp.machine import rehearsal
from construir_ftp.machine.shape import Shape
from construir_ftp.machine.vm import Machine


class Source(Protocol):
    """What machines that wait are made of, all of one shape."""

    @property
    def shape(self) -> Shape:
        """What kind of machine they are."""

    def waiting(self) -> AbstractContextManager[Machine]:
        """A machine that has rehearsed, and waits. Raises ConstruirError, StoppedError as soon as it is not wanted."""


class Boots:
    """Machines that boot before there is a job, those that get ready as long as `stop` is not readable."""

    def __init__(self, shape: Shape, timeout_s: float, stop: socket.socket) -> None:
        self.shape, self._timeout_s, self._stop = shape, timeout_s, stop

    @contextmanager
    def waiting(self) -> Iterator[Machine]:
        """See Source. What the machine has done by then is in its memory, such as the first pages of a shell."""
        with Machine.start(self.shape) as machine, rehearsal.disk() as disk:
            machine.wait_until_ready(self._timeout_s, self._stop)
            machine.rehearse(disk, self._timeout_s, self._stop)
            machine.became("pooled")
            yield machine
