"""The management console of a user-mode kernel: commands that are answered by the kernel itself, not by its guest.

A command and its answer are a datagram each (arch/um/drivers/mconsole.h). Every wait has a deadline. Close it before a
machine gets its job: what the job may have taken over has nobody left to talk to.
"""

import socket
import struct

from construir_ftp.errors import CommandError, MachineUnavailableError, one_line

_MAGIC, _VERSION = 0xCAFEBABE, 2
_REQUEST, _ANSWER = struct.Struct("=III"), struct.Struct("=iII")
# The longest that either may be, its header included.
_MOST_BYTES = 512
_TIMEOUT_S = 10.0


class Mconsole:
    """One conversation with one kernel, over our end of a pair of datagram sockets. Not for two threads at once."""

    def __init__(self, wire: socket.socket, timeout_s: float = _TIMEOUT_S) -> None:
        self._wire = wire
        self._wire.settimeout(timeout_s)

    def ask(self, command: str) -> str:
        """Give a command, and wait for its answer.

        Raises CommandError where it is refused, MachineUnavailableError where there is no answer in time.
        """
        data = command.encode()
        try:
            self._wire.send(_REQUEST.pack(_MAGIC, _VERSION, len(data)) + data)
            answer = self._wire.recv(2 * _MOST_BYTES)
            problem, _, length = _ANSWER.unpack_from(answer)
        except (OSError, struct.error) as error:
            raise MachineUnavailableError(f"a user-mode kernel does not answer ({command.split()[0]})") from error
        said = answer[_ANSWER.size :][:length].rstrip(b"\0").decode(errors="replace").strip()
        if problem:
            raise CommandError(f"a user-mode kernel refuses '{command}': {one_line(said)}")
        return said

    def close(self) -> None:
        """Talk to it no more."""
        self._wire.close()
