"""What runs a machine: the seam between following one, which is vm's, and the program that is one.

An engine starts a machine in a jail, feeds it and lets it go on; vm follows what it says, holds its deadlines and ends
it. Another kind of machine is a module beside `qemu_engine`, and a row in `engines.ENGINES`.
"""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from construir_ftp.jail.prisoner import Prisoner


class Engine(Protocol):
    """A machine that was started and has not ended. Nothing here waits for its guest."""

    @property
    def prisoner(self) -> Prisoner:
        """The program, in its jail."""

    @property
    def wires(self) -> Mapping[str, socket.socket]:
        """Our ends of what connects the guest: "control" and "output", the two ports of guest, and "console"."""

    @property
    def ends_as_guest_likes(self) -> bool:
        """Whether the guest decides how the program ends, so that its status tells nothing of the host."""

    def plug(self, job: int, read_only: tuple[Path, ...] = ()) -> None:
        """Put the job's disk, an open descriptor, and files to be read into a machine whose guest has bound none.

        Raises OSError, CommandError, MachineUnavailableError.
        """

    def resume(self) -> None:
        """Let the guest run, if it was stopped. Raises MachineUnavailableError."""

    def seal(self) -> None:
        """From now on the job may have taken the machine over: nothing is asked of it, or heard, but over the wires."""
