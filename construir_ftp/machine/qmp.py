"""The monitor of a running QEMU: commands, their answers, its events (QMP, docs/interop/qmp-spec.txt of QEMU).

QEMU is started with one end of a socket pair (`args`), and this holds the other. Every wait has a deadline. What comes
back is only believed in shape and size: close the monitor before a machine gets its job, and a machine that the job
has taken over has nobody left to talk to.
"""

import array
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Self, TypeVar

import msgspec

from construir_ftp import schema
from construir_ftp.errors import CommandError, MachineUnavailableError, one_line

_READ_BYTES = 64 * 1024
# Longer than any answer to what is asked here. Nothing QEMU says may fill our memory.
_MAX_LINE_BYTES = 2**20
_MAX_EVENTS = 256
_QUOTED_CHARACTERS = 400

Data = dict[str, Any]
T = TypeVar("T")


class _Message(msgspec.Struct):
    """Whatever QEMU may send, one line of JSON each: its greeting, an answer, a refusal, an event."""

    greeting: Data | None = msgspec.field(default=None, name="QMP")
    answer: Any = msgspec.field(default=msgspec.UNSET, name="return")
    error: Data | None = None
    event: str | None = None
    data: Data = {}


def args(fd: int) -> list[str]:
    """What makes a QEMU that inherits `fd`, one end of a socket pair, take commands on it."""
    return ["-chardev", f"socket,id=qmp,fd={fd}", "-mon", "chardev=qmp,mode=control"]


class Monitor:
    """One conversation with one QEMU, from its greeting on. Not for two threads at once.

    Every wait raises MachineUnavailableError when QEMU is gone, talks nonsense, or has not answered in time; the
    conversation is over then.
    """

    def __init__(self, wire: socket.socket, timeout_s: float = 10.0) -> None:
        """Take over our end of the socket pair, wait for the greeting, and agree on nothing optional.

        `timeout_s` is for the greeting, and for each command that is not given another.
        """
        self._wire = wire
        self._timeout_s = timeout_s
        self._unread = b""
        self._events: deque[_Message] = deque(maxlen=_MAX_EVENTS)
        try:
            deadline = time.monotonic() + timeout_s
            while self._next(deadline, "its greeting").greeting is None:
                pass
            self.ask("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the conversation; QEMU goes on."""
        self._wire.close()

    def ask(
        self, command: str, arguments: Data | None = None, *, fds: Sequence[int] = (), timeout_s: float | None = None
    ) -> Any:
        """Give a command and return what it returns. `fds` go along, for getfd and add-fd; they stay ours to close.

        Raises CommandError, which quotes the command, where QEMU refuses it.
        """
        line = msgspec.json.encode({"execute": command, **({"arguments": arguments} if arguments else {})})
        deadline = self._deadline(timeout_s)
        self._send(line + b"\n", fds, deadline, command)
        # One command at a time, and in-band: the next answer is this one's (qmp-spec.txt, 2.4).
        while True:
            reply = self._next(deadline, f"an answer to {command}")
            if reply.error is not None:
                reason = str(reply.error.get("desc", reply.error))
                raise CommandError(f"QEMU refuses {_quoted(line.decode())}: {_quoted(reason)}")
            if reply.answer is not msgspec.UNSET:
                return reply.answer

    def ask_for(self, kind: type[T], command: str, *, fds: Sequence[int] = ()) -> T:
        """The same, where what is returned has to be a `kind`."""
        try:
            return msgspec.convert(self.ask(command, fds=fds), kind)
        except msgspec.ValidationError as error:
            raise MachineUnavailableError(f"QEMU answers {command} with nonsense: {_quoted(str(error))}") from error

    def wait_for(self, event: str, timeout_s: float | None = None, **data: object) -> Data:
        """Return the data of the first `event` that has these values in it; one that has come before counts.

        Events before it are forgotten, those after it are kept.
        """
        deadline = self._deadline(timeout_s)
        while True:
            while self._events:
                found = self._events.popleft()
                if found.event == event and data.items() <= found.data.items():
                    return found.data
            self._next(deadline, f"the event {event}")

    def _deadline(self, timeout_s: float | None) -> float:
        return time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)

    def _send(self, line: bytes, fds: Sequence[int], deadline: float, what: str) -> None:
        # SCM_RIGHTS, unix(7): QEMU takes the descriptors with the first byte of the command.
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._set_timeout(deadline, what)
            sent = self._wire.sendmsg([line], rights)
            self._wire.sendall(line[sent:])
        except OSError as error:
            raise _lost(f"could not be given {what}", error) from error

    def _next(self, deadline: float, awaited: str) -> _Message:
        """The next message, whatever it is. Events are also kept for wait_for."""
        while b"\n" not in self._unread:
            if len(self._unread) > _MAX_LINE_BYTES:
                raise MachineUnavailableError(f"QEMU sent an endless line instead of {awaited}")
            self._set_timeout(deadline, awaited)
            self._unread += self._receive(awaited)
        line, _, self._unread = self._unread.partition(b"\n")
        try:
            message = schema.from_json(line, _Message)
        except msgspec.MsgspecError as error:
            raise MachineUnavailableError(f"QEMU sent nonsense instead of {awaited}: {line[:80]!r}") from error
        if message.event is not None:
            self._events.append(message)
        return message

    def _receive(self, awaited: str) -> bytes:
        try:
            block = self._wire.recv(_READ_BYTES)
        except OSError as error:
            raise _lost(f"did not send {awaited}", error) from error
        if not block:
            raise MachineUnavailableError(f"QEMU ended before it sent {awaited}")
        return block

    def _set_timeout(self, deadline: float, awaited: str) -> None:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise MachineUnavailableError(f"QEMU is too late with {awaited}")
        self._wire.settimeout(left_s)


def _quoted(text: str) -> str:
    return one_line(" ".join(text[:_QUOTED_CHARACTERS].split()))


def _lost(what: str, error: OSError) -> MachineUnavailableError:
    reason = "not in time" if isinstance(error, TimeoutError) else error.strerror
    return MachineUnavailableError(f"QEMU {what} ({reason})")
