"""One machine, from its start to its end: what it is told, what it says, its deadlines, its logs, how it ended.

A machine boots, or is cloned from a template; it may wait for its job, and has one job only. Whoever runs one
waits on file descriptors, never on the clock; a deadline kills it. Its program lives in a jail that ends with the
thread that started it.
"""

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Self

from construir_ftp.errors import MachineUnavailableError, StoppedError
from construir_ftp.jobs.result import BootPath, Claims
from construir_ftp.machine import brake, guest
from construir_ftp.machine.capped_log import CappedLog
from construir_ftp.machine.deadlines import Deadlines, Killed
from construir_ftp.machine.ending import Assignment, Ending
from construir_ftp.machine.engine import Engine
from construir_ftp.machine.engines import ENGINES
from construir_ftp.machine.shape import Shape
from construir_ftp.machine.usage import Meter

_READ_BYTES = 64 * 1024
_QUOTED_CHARACTERS = 400
_CONSOLE_TAIL_BYTES = 8 * 1024
# After the guest said how the job ended it has this long to unmount, which can mean writing a whole disk back.
POWER_OFF_S = 300.0


class Machine:
    """A machine, followed by one thread from its start to its end; `engine` is what runs it."""

    def __init__(self, shape: Shape, engine: Engine) -> None:
        self.shape, self.engine = shape, engine
        self.ending = Ending(claims=Claims(), booted=time.time())
        self._process = engine.prisoner.process
        self._meter = Meter(engine.prisoner)
        self._selector = selectors.PollSelector()  # epoll takes no files
        self._pidfd = os.pidfd_open(self._process.pid)
        self._selector.register(self._pidfd, selectors.EVENT_READ, self._reap)
        self._messages = guest.Messages()
        self._sinks: dict[str, Callable[[bytes], None]] = {"control": self._hear}
        self._deadlines = Deadlines()
        self._rider = brake.Rider(engine.prisoner, self._deadlines)
        self._selector.register(self._rider.changed, selectors.EVENT_READ, self._rider.obey)
        for name in ("control", "output", "console"):
            self._listen(name)

    @classmethod
    @contextmanager
    def start(cls, shape: Shape) -> Iterator[Self]:
        """Start a machine of the kind that its shape asks for. On leaving the context it is dead and reaped.

        Raises MachineUnavailableError where it can't be started.
        """
        with ENGINES[shape.accelerator](shape) as engine, cls.following(shape, engine) as machine:
            yield machine

    @classmethod
    @contextmanager
    def following(cls, shape: Shape, engine: Engine) -> Iterator[Self]:
        """Follow a machine that was just started; on leaving the context it is dead and reaped."""
        machine = cls(shape, engine)
        try:
            yield machine
        finally:
            machine._close()

    # -- before there is a job -----------------------------------------------------------------------------

    def wait_until_ready(self, timeout_s: float, stop: socket.socket | None = None) -> None:
        """Wait until the guest waits for an order. Raises MachineUnavailableError, and StoppedError as soon as `stop`
        is readable; the machine is dead then.
        """
        self._deadlines.set({"boot-timeout": timeout_s})
        with self._killed_by(stop):
            self._follow(lambda: self.ending.claims.ready)
        if not self.ending.claims.ready:
            if self.ending.killed == "stopped":
                raise StoppedError("a machine is not wanted any more")
            if self.ending.killed:
                raise MachineUnavailableError(f"a machine hung for {timeout_s:g} s")
            how = self.ending.words or f"it ended with status {self.ending.status}"
            raise MachineUnavailableError(f"a machine did not come up ({how})")

    @contextmanager
    def _killed_by(self, stop: socket.socket | None) -> Iterator[None]:
        """Within, the machine is killed as soon as `stop` is readable."""
        if stop is None:
            yield
            return
        self._selector.register(stop, selectors.EVENT_READ, lambda: self._kill("stopped"))
        try:
            yield
        finally:
            self._selector.unregister(stop)

    def rehearse(self, disk_fd: int, timeout_s: float, stop: socket.socket | None = None) -> None:
        """Have the guest do a job that leaves nothing behind, so that the real one finds everything warm."""
        self.engine.plug(disk_fd)
        self.ending.claims = Claims()
        self._go("rehearse", guest.Errand(hostname="rehearsal", filesystem="ext2"))
        self.wait_until_ready(timeout_s, stop)

    def became(self, boot_path: BootPath) -> None:
        """Note that the guest is ready without having booted."""
        self.ending.boot_path = boot_path
        self.ending.claims = Claims(ready=True)

    # -- the job -----------------------------------------------------------------------------------------------

    def run(self, assignment: Assignment, stop: socket.socket | None = None) -> Ending:
        """Have the machine do what it is for, and wait for its end; the logs are complete on return.

        It is killed at a deadline, and as soon as `stop` becomes readable. Raises MachineUnavailableError or
        CommandError, with nothing of the job run, if the disk can't be put into it.
        """
        with ExitStack() as stack:
            output = _open_log(stack, assignment.output, assignment)
            console = _open_log(stack, assignment.console, assignment)
            self._sinks["output"] = lambda block: self._note_output(block, output)
            self._sinks["console"] = lambda block: self._note_console(block, console)
            stack.enter_context(self._killed_by(stop))
            if self.ending.boot_path != "cold":
                self.ending.booted = time.time()
            self._deadlines.set({"boot-timeout": assignment.boot_timeout_s})
            self._follow(lambda: self.ending.claims.ready)
            if self.ending.status is None:
                self._begin(assignment)
                self._deadlines.set({"boot-timeout": assignment.boot_timeout_s})
                self._follow(lambda: self.ending.took_order)
                self._deadlines.set({"mount-timeout": assignment.mount_timeout_s})
                self._follow(lambda: self._began(assignment))
                self._follow(self.ending.claims.finished)
                self._meter.look()
                if self.ending.claims.finished():
                    self._deadlines.set({"power-off-timeout": POWER_OFF_S})
                self._follow(lambda: False)
            self._drain()
            return self.ending

    def _begin(self, assignment: Assignment) -> None:
        self._meter.begin()
        descriptor = os.open(assignment.disk, os.O_RDWR | os.O_CLOEXEC)
        try:
            self.engine.plug(descriptor, (*assignment.layers, *assignment.results))
        finally:
            os.close(descriptor)
        self._go("go", assignment.errand)
        self.engine.seal()

    def _go(self, word: str, errand: guest.Errand) -> None:
        self.engine.resume()
        self._say(guest.order(word, errand))

    def _began(self, assignment: Assignment) -> bool:
        claims = self.ending.claims
        if claims.started:
            self.ending.started = time.time()
            self._deadlines.set({"timeout": assignment.timeout_s, "idle-timeout": assignment.idle_timeout_s})
        return claims.started or claims.finished()

    # -- following it --------------------------------------------------------------------------------------------

    def _listen(self, name: str) -> None:
        wire = self.engine.wires[name]
        wire.setblocking(False)
        self._selector.register(wire, selectors.EVENT_READ, lambda: self._receive(name, wire))

    def _follow(self, until: Callable[[], bool]) -> None:
        """Wait until something is so, or the machine has ended.

        What has come by a deadline counts, although this thread may have slept through both: so it is heard first.
        Under the brake it waits for that to be off.
        """
        while self.ending.status is None and (self._rider.stands or not until()):
            for key, _ in self._selector.select(self._patience_s()):
                key.data()
            if self._rider.stands:
                self._rider.stand()
            elif self._is_late() and not until():
                self._expire(self._deadlines.next())

    def _patience_s(self) -> float | None:
        if self.ending.killed:
            return None
        return brake.AGAIN_S if self._rider.stands else max(0.0, self._deadlines.left_s())

    def _is_late(self) -> bool:
        return self.ending.status is None and not self.ending.killed and self._deadlines.left_s() <= 0

    def _drain(self) -> None:
        """What it said last may still be on its way."""
        for key in list(self._selector.get_map().values()):
            if key.fileobj in self.engine.wires.values():
                while key.data():
                    pass

    def _receive(self, name: str, wire: socket.socket) -> bool:
        """Read what is there; False when nothing is, or nothing will be any more."""
        try:
            block = wire.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except ConnectionResetError:  # it died with something of ours unread
            block = b""
        if not block:
            self._selector.unregister(wire)
            return False
        if name in self._sinks:
            self._sinks[name](block)
        return True

    def _hear(self, block: bytes) -> None:
        for line in self._messages.feed(block):
            if line == "clock":
                self.ending.took_order = True
                self._say(guest.clock())
            guest.take(self.ending.claims, line)

    def _say(self, message: bytes) -> None:
        with suppress(OSError):  # it has just died: its end is noticed by its pidfd
            self.engine.wires["control"].send(message)

    def _note_output(self, block: bytes, log: CappedLog) -> None:
        self._deadlines.put_off("idle-timeout")
        if self.ending.first_output is None:
            self.ending.first_output = time.time()
        self.ending.output_bytes += len(block)
        log.write(block)

    def _note_console(self, block: bytes, log: CappedLog) -> None:
        self.ending.console_tail = (self.ending.console_tail + block)[-_CONSOLE_TAIL_BYTES:]
        log.write(block)

    def _expire(self, deadline: Killed) -> None:
        self.ending.limit_s = self._deadlines.limit_s(deadline)
        self._kill(deadline)

    def _kill(self, why: Killed) -> None:
        if self.ending.killed is None:
            self.ending.killed = why
            self._meter.look()
            self.engine.prisoner.kill()

    def _reap(self) -> None:
        self._process.returncode, self.ending.usage = self._meter.reap()
        self.ending.status = self.engine.prisoner.status(self._process.returncode)
        # By SIGKILL it ends if somebody on the host ends it, or if the host's kernel does for want of memory.
        ended_itself = self.ending.took_order and self.ending.status != -signal.SIGKILL
        self.ending.chosen = ended_itself and self.engine.ends_as_guest_likes
        self.ending.ended = time.time()
        self.ending.paused_s = self._deadlines.stood_still_s()
        self.ending.words = self._last_words()

    def _last_words(self) -> str:
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)
        said = self._process.stderr.read() or b""
        return "; ".join(said.decode(errors="replace").strip().splitlines())[-_QUOTED_CHARACTERS:]

    def _close(self) -> None:
        if self._process.returncode is None:
            self._kill("stopped")
            self._reap()
        self._selector.close()
        self._rider.close()
        os.close(self._pidfd)


def _open_log(stack: ExitStack, path: Path, assignment: Assignment) -> CappedLog:
    return stack.enter_context(closing(CappedLog(path, assignment.log_head_bytes, assignment.log_tail_bytes)))
