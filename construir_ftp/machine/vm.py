"""One machine, from its start to its end: what it is told, what it says, its deadlines, its logs, how it ended.

A machine boots, or is cloned from a template; it may wait for its job, and has one job only. Whoever runs one
waits on file descriptors, never on the clock; a deadline kills it. QEMU lives in a jail that ends with the
thread that started it.
"""

import os
import selectors
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Literal, Self

import msgspec

from construir_ftp import process
from construir_ftp.errors import ConstruirError, MachineUnavailableError
from construir_ftp.image import baseimage
from construir_ftp.jail import cell, jail
from construir_ftp.jail.prisoner import Prisoner
from construir_ftp.jobs.result import BootPath, Claims, Usage
from construir_ftp.machine import disks, guest, qemu, qmp
from construir_ftp.machine.capped_log import CappedLog
from construir_ftp.machine.qemu import WIRES, Ram, Shape
from construir_ftp.machine.usage import Meter

_READ_BYTES = 64 * 1024
_QUOTED_CHARACTERS = 400
# After the guest said how the job ended it has this long to unmount, which can mean writing a whole disk back.
POWER_OFF_S = 300.0

# Why a machine was ended by us: the job took too long, or was silent for too long; it never got as far as run.sh;
# it did not switch itself off; nobody wants it any more.
Killed = Literal["timeout", "idle-timeout", "boot-timeout", "power-off-timeout", "stopped"]


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine is to do: the job's disk, what it depends on, its limits in seconds, where what it says is kept.

    `layers` are squashfs images, the lowest first; `results` are the disks that the errand names, in its order. A shape
    has to have room for all of them.
    """

    disk: Path
    errand: guest.Errand
    layers: tuple[Path, ...] = ()
    results: tuple[Path, ...] = ()
    timeout_s: float
    idle_timeout_s: float
    boot_timeout_s: float
    output: Path
    console: Path
    log_head_bytes: int
    log_tail_bytes: int


class Ending(msgspec.Struct, kw_only=True):
    """How a machine ended. `claims` is what the guest claims, all else was measured from outside.

    Times are seconds since the Epoch; None for what never happened. `booted` is when the machine was given to its
    job; what a waiting machine did before is not counted.
    """

    claims: Claims
    boot_path: BootPath = "cold"
    killed: Killed | None = None
    qemu_status: int | None = None
    qemu_words: str = ""
    booted: float
    started: float | None = None
    first_output: float | None = None
    ended: float = 0.0
    output_bytes: int = 0
    usage: Usage = Usage()


class Machine:
    """A QEMU process and the wires out of it, followed by one thread from its start to its end."""

    def __init__(self, shape: Shape, prisoner: Prisoner, wires: dict[str, socket.socket]) -> None:
        self.shape = shape
        self.ending = Ending(claims=Claims(), booted=time.time())
        self._prisoner = prisoner
        self._qemu = prisoner.process
        self._meter = Meter(prisoner)
        self._wires = wires
        self._monitor: qmp.Monitor | None = None
        self._selector = selectors.PollSelector()  # epoll takes no files
        self._pidfd = os.pidfd_open(self._qemu.pid)
        self._selector.register(self._pidfd, selectors.EVENT_READ, self._reap)
        self._messages = guest.Messages()
        self._sinks: dict[str, Callable[[bytes], None]] = {"control": self._hear}
        self._deadlines: dict[Killed, float] = {}
        for name in ("control", "output", "console"):
            self._listen(name)

    @classmethod
    @contextmanager
    def start(cls, shape: Shape, ram: Ram | None = None) -> Iterator[Self]:
        """Start QEMU. On leaving the context it is dead and reaped, and its wires are closed.

        Raises MachineUnavailableError where there is no QEMU, or no jail, to be started.
        """
        if process.find(shape.qemu) is None:
            raise MachineUnavailableError(f"{shape.qemu}: not installed; run: apt install {shape.architecture.package}")
        with ExitStack() as stack:
            pairs = {name: socket.socketpair() for name in WIRES}
            for ours, theirs in pairs.values():
                stack.callback(ours.close)
                stack.callback(theirs.close)
            fds = {name: theirs.fileno() for name, (_, theirs) in pairs.items()}
            inherited = [*fds.values(), *([ram.fd, ram.root_fd] if ram else [])]
            try:
                stack.callback(os.close, baseimage.hold(shape.base))
                prisoner = stack.enter_context(
                    jail.host().hold(
                        _cell(shape), qemu.argv(shape, fds, ram), pass_fds=inherited, stderr=subprocess.PIPE
                    )
                )
            except (ConstruirError, OSError) as error:
                raise MachineUnavailableError(f"QEMU can't be started: {error}; run: construir check") from error
            for _, theirs in pairs.values():
                theirs.close()
            machine = cls(shape, prisoner, {name: ours for name, (ours, _) in pairs.items()})
            stack.callback(machine._close)
            yield machine

    # -- before there is a job -----------------------------------------------------------------------------

    def monitor(self) -> qmp.Monitor:
        """QEMU's monitor, until the machine gets its job: from then on nobody listens to what QEMU says."""
        if self._monitor is None:
            self._monitor = qmp.Monitor(self._wires["qmp"])
        return self._monitor

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait until the guest waits for an order. Raises MachineUnavailableError; the machine is dead then."""
        self._set_deadlines({"boot-timeout": timeout_s})
        self._follow(lambda: self.ending.claims.ready)
        if not self.ending.claims.ready:
            if self.ending.killed:
                raise MachineUnavailableError(f"a machine hung for {timeout_s:g} s")
            how = self.ending.qemu_words or f"QEMU ended with status {self.ending.qemu_status}"
            raise MachineUnavailableError(f"a machine did not come up ({how})")

    def rehearse(self, disk_fd: int, timeout_s: float) -> None:
        """Have the guest do a job that leaves nothing behind, so that the real one finds everything warm."""
        disks.insert(self.monitor(), disk_fd)
        self.ending.claims = Claims()
        self._go("rehearse", guest.Errand(hostname="rehearsal", filesystem="ext2"))
        self.wait_until_ready(timeout_s)

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
            self._sinks["output"] = lambda block: self._note_output(block, output, assignment.idle_timeout_s)
            self._sinks["console"] = console.write
            if stop is not None:
                self._selector.register(stop, selectors.EVENT_READ, lambda: self._kill("stopped"))
            if self.ending.boot_path != "cold":
                self.ending.booted = time.time()
            self._set_deadlines({"boot-timeout": assignment.boot_timeout_s})
            self._follow(lambda: self.ending.claims.ready)
            if self.ending.qemu_status is None:
                self._begin(assignment)
                self._follow(lambda: self._began(assignment))
                self._follow(self.ending.claims.finished)
                self._meter.look()
                if self.ending.claims.finished():
                    self._set_deadlines({"power-off-timeout": POWER_OFF_S})
                self._follow(lambda: False)
            self._drain()
            return self.ending

    def _begin(self, assignment: Assignment) -> None:
        self._meter.begin()
        descriptor = os.open(assignment.disk, os.O_RDWR | os.O_CLOEXEC)
        try:
            disks.insert(self.monitor(), descriptor, (*assignment.layers, *assignment.results))
        finally:
            os.close(descriptor)
        self._go("go", assignment.errand)
        self.monitor().close()

    def _go(self, word: str, errand: guest.Errand) -> None:
        self.monitor().ask("cont")
        self._say(guest.order(word, errand))

    def _began(self, assignment: Assignment) -> bool:
        claims = self.ending.claims
        if claims.started:
            self.ending.started = time.time()
            self._set_deadlines({"timeout": assignment.timeout_s, "idle-timeout": assignment.idle_timeout_s})
        return claims.started or claims.finished()

    # -- following it --------------------------------------------------------------------------------------------

    def _listen(self, name: str) -> None:
        wire = self._wires[name]
        wire.setblocking(False)
        self._selector.register(wire, selectors.EVENT_READ, lambda: self._receive(name, wire))

    def _follow(self, until: Callable[[], bool]) -> None:
        """Wait until something is so, or QEMU has ended."""
        while self.ending.qemu_status is None and not until():
            meaning, at = min(self._deadlines.items(), key=lambda deadline: deadline[1])
            left_s = at - time.monotonic()
            if left_s <= 0 and not self.ending.killed:
                self._expire(meaning)
            for key, _ in self._selector.select(None if self.ending.killed else left_s):
                key.data()

    def _drain(self) -> None:
        """What it said last may still be on its way."""
        for key in list(self._selector.get_map().values()):
            if key.fileobj in self._wires.values():
                while key.data():
                    pass

    def _receive(self, name: str, wire: socket.socket) -> bool:
        """Read what is there; False when nothing is, or nothing will be any more."""
        try:
            block = wire.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except ConnectionResetError:  # QEMU died with something of ours unread
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
                self._say(guest.clock())
            guest.take(self.ending.claims, line)

    def _say(self, message: bytes) -> None:
        with suppress(OSError):  # it has just died: its end is noticed by its pidfd
            self._wires["control"].send(message)

    def _note_output(self, block: bytes, log: CappedLog, idle_timeout_s: float) -> None:
        if "idle-timeout" in self._deadlines:
            self._deadlines["idle-timeout"] = time.monotonic() + idle_timeout_s
        if self.ending.first_output is None:
            self.ending.first_output = time.time()
        self.ending.output_bytes += len(block)
        log.write(block)

    def _set_deadlines(self, from_now_s: Mapping[Killed, float]) -> None:
        """Replace all deadlines: each is what the machine is killed for when it has passed."""
        self._deadlines = {meaning: time.monotonic() + left_s for meaning, left_s in from_now_s.items()}

    def _expire(self, deadline: Killed) -> None:
        self._kill(deadline)

    def _kill(self, why: Killed) -> None:
        if self.ending.killed is None:
            self.ending.killed = why
            self._meter.look()
            self._prisoner.kill()

    def _reap(self) -> None:
        self._qemu.returncode, self.ending.usage = self._meter.reap()
        self.ending.qemu_status = self._prisoner.status(self._qemu.returncode)
        self.ending.ended = time.time()
        self.ending.qemu_words = self._last_words()

    def _last_words(self) -> str:
        assert self._qemu.stderr is not None
        os.set_blocking(self._qemu.stderr.fileno(), False)
        said = self._qemu.stderr.read() or b""
        return "; ".join(said.decode(errors="replace").strip().splitlines())[-_QUOTED_CHARACTERS:]

    def _close(self) -> None:
        if self._qemu.returncode is None:
            self._kill("stopped")
            self._reap()
        self._selector.close()
        os.close(self._pidfd)


def _open_log(stack: ExitStack, path: Path, assignment: Assignment) -> CappedLog:
    return stack.enter_context(closing(CappedLog(path, assignment.log_head_bytes, assignment.log_tail_bytes)))


def _cell(shape: Shape) -> cell.Cell:
    return cell.machine(
        shape.qemu,
        base=(shape.base.root, shape.base.kernel, shape.base.initrd),
        memory_bytes=shape.memory_bytes,
        cpus=shape.cpus,
        scratch_bytes=shape.scratch_bytes,
        disk_bytes=shape.max_disk_bytes,
        kvm=shape.accelerator == "kvm",
    )
