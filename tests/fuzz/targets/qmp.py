"""A QEMU that says anything on its monitor."""

import socket

from construir_ftp.errors import CommandError, MachineUnavailableError
from construir_ftp.machine.qmp import Monitor
from tests.fuzz.targets import alone, demand_line

_PATIENCE_S = 5.0


def attempt(data: bytes) -> None:
    """It is answered with what it has said, or with one line that says what is wrong."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        try:
            with Monitor(ours, _PATIENCE_S) as monitor:
                monitor.ask("query-status")
                monitor.wait_for("STOP")
                monitor.wait_for("SHUTDOWN", guest=True)
        except (CommandError, MachineUnavailableError) as error:
            demand_line(str(error))


target = alone(attempt)
