"""A machine that somebody sits at: its console is theirs instead of a log's, and a login stands in run.sh's place.

No limit here is meant for who visits, only for machines that do not come up or do not switch themselves off.
"""

import selectors
import socket
from contextlib import suppress
from pathlib import Path

from construir_ftp.errors import StoppedError
from construir_ftp.machine import guest
from construir_ftp.machine.deadlines import Killed
from construir_ftp.machine.ending import Ending
from construir_ftp.machine.terminal import Terminal
from construir_ftp.machine.vm import POWER_OFF_S, Machine

# Whoever has not come back to a machine by then has forgotten it.
_VISIT_S = 7 * 24 * 3600.0
_NUDGE_S = 1.0


class Console(Machine):
    """A machine for one visit; start() makes one."""

    def attend(
        self,
        terminal: Terminal,
        errand: guest.Errand,
        disk: int | None,
        read_only: tuple[Path, ...],
        boot_timeout_s: float,
        stop: socket.socket,
    ) -> Ending:
        """Connect a terminal, give the guest its errand, `disk`, a descriptor, as the job's, and those beside it; wait
        for the end.

        The machine is killed once the terminal is left, and as soon as `stop` is readable. Raises
        MachineUnavailableError where it does not come up, CommandError where it does not take the disk.
        """
        self._terminal, self._stop = terminal, stop
        self._unsent, self._hears_keys = b"", False
        self._sinks["console"] = self._sinks["output"] = self._show
        self._selector.register(stop, selectors.EVENT_READ, lambda: self._kill("stopped"))
        self._set_pace()
        try:
            self.wait_until_ready(boot_timeout_s)
        except StoppedError:
            return self.ending
        if disk is not None:
            self.engine.plug(disk, read_only)
        self._go("shell", errand)
        self.engine.seal()
        self._follow_visit()
        return self.ending

    def _follow_visit(self) -> None:
        claims = self.ending.claims
        self._deadlines.set({"timeout": _VISIT_S, "idle-timeout": _NUDGE_S})
        self._follow(lambda: claims.finished() or claims.started)
        if claims.started:  # the guest knows no such order, and took it for the usual one
            self._kill("stopped")
        self._deadlines.set({"power-off-timeout": POWER_OFF_S})
        self._follow(lambda: False)
        self._drain()

    def _expire(self, deadline: Killed) -> None:
        """One deadline is nobody's end: a script's is told again, since a program may have taken it for its own."""
        if deadline == "idle-timeout":
            self._type(self._terminal.nudge())
            self._deadlines.set({"timeout": _VISIT_S, "idle-timeout": _NUDGE_S})
        else:
            super()._expire(deadline)

    def _show(self, said: bytes) -> None:
        self._type(self._terminal.show(said, self._stop))

    def _read_keys(self) -> None:
        self._type(self._terminal.read())
        if self._terminal.has_left:
            self._kill("stopped")
        self._set_pace()

    def _type(self, keys: bytes) -> None:
        """Send keys as fast as the machine takes them."""
        self._unsent += keys
        if self._unsent:
            with suppress(OSError):  # it is busy; or it has just died, and its pidfd will say so
                self._unsent = self._unsent[self.engine.wires["console"].send(self._unsent) :]
            self._set_pace()

    def _set_pace(self) -> None:
        """While keys wait to be sent, wait for that, and read no more of them."""
        wire = self.engine.wires["console"]
        mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        with suppress(KeyError):  # the machine has closed it
            self._selector.modify(wire, mask, self._exchange)
        hears_keys = not (self._unsent or self._terminal.has_left or self._terminal.is_exhausted)
        if hears_keys and not self._hears_keys:
            self._selector.register(self._terminal.keys, selectors.EVENT_READ, self._read_keys)
        if self._hears_keys and not hears_keys:
            self._selector.unregister(self._terminal.keys)
        self._hears_keys = hears_keys

    def _exchange(self) -> bool:
        self._type(b"")
        return self._receive("console", self.engine.wires["console"])
