"""One QEMU run: its arguments, its deadlines, its logs, how it ended.

The machine has a root disk that forgets, the job's disk, three wires out (control, output, console) and
nothing else. Whoever runs one waits on file descriptors, never on the clock; a deadline kills it.
"""

import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Literal, Self

import msgspec

from construir_ftp import guest, process
from construir_ftp.errors import CommandError, MachineUnavailableError
from construir_ftp.image import BaseImage
from construir_ftp.logfile import CappedLog

WIRES = ("control", "output", "console")
_READ_BYTES = 64 * 1024
_QUOTED_CHARACTERS = 400
# After the guest said how the job ended it has this long to unmount, which can mean writing a whole disk back.
_POWER_OFF_S = 300.0
_ANSWER_S = 30.0

Accelerator = Literal["kvm", "tcg"]
# Why a machine was ended by us: the job took too long, or was silent for too long; it never got as far as run.sh;
# it did not switch itself off; nobody wants it any more.
Killed = Literal["timeout", "idle-timeout", "boot-timeout", "power-off-timeout", "stopped"]


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What kind of machine: all that is settled before it gets a job. Memory in bytes."""

    qemu: str
    base: BaseImage
    accelerator: Accelerator
    memory_bytes: int
    cpus: int


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine is to do: the job's disk, its limits in seconds, and where what it says is kept."""

    disk: Path
    filesystem: str
    hostname: str
    timeout_s: float
    idle_timeout_s: float
    boot_timeout_s: float
    output: Path
    console: Path
    log_head_bytes: int
    log_tail_bytes: int


class Ending(msgspec.Struct, kw_only=True):
    """How a machine ended. `report` is what the guest claims, all else was measured from outside.

    Times are seconds since the Epoch; None for what never happened.
    """

    report: guest.Report
    killed: Killed | None = None
    qemu_status: int | None = None
    qemu_words: str = ""
    booted: float
    started: float | None = None
    first_output: float | None = None
    ended: float = 0.0
    output_bytes: int = 0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0


def version(qemu: str) -> str:
    """The first line of what the program `qemu` says of itself. Raises MachineUnavailableError if it says nothing."""
    try:
        return process.run([qemu, "--version"], timeout_s=_ANSWER_S).partition("\n")[0]
    except CommandError as error:
        raise MachineUnavailableError(f"{error}; run: apt install qemu-system-x86") from error


def argv(shape: Shape, job_disk: Path, wires: Mapping[str, int]) -> list[str]:
    """The whole command line of a machine; `wires` are the descriptors of control, output and console."""
    return [
        # Should the runner be killed, its machines die with it (prctl(2), PR_SET_PDEATHSIG).
        *("setpriv", "--pdeathsig", "KILL", "--no-new-privs", "--"),
        shape.qemu,
        *_machine_args(shape),
        *_kernel_args(shape),
        *_root_args(shape.base.root),
        *_job_args(job_disk),
        *_wire_args(wires),
        *_sandbox_args(),
    ]


def _machine_args(shape: Shape) -> list[str]:
    return [
        *("-M", "microvm,rtc=on,acpi=on", "-accel", shape.accelerator),
        *("-cpu", "host" if shape.accelerator == "kvm" else "qemu64"),
        *("-m", f"{shape.memory_bytes // 2**20}M", "-smp", str(shape.cpus)),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none"),
        # Without a source of entropy the guest's first getrandom() waits for a second.
        *("-object", "rng-random,id=entropy,filename=/dev/urandom", "-device", "virtio-rng-device,rng=entropy"),
    ]


def _kernel_args(shape: Shape) -> list[str]:
    return [
        *("-kernel", str(shape.base.kernel), "-initrd", str(shape.base.initrd)),
        *("-append", guest.kernel_line(shape.accelerator)),
    ]


def _root_args(root: Path) -> list[str]:
    drive = f"if=none,id=root,file={_escaped(root)},format=raw,snapshot=on,cache=unsafe,read-only=off"
    return ["-drive", drive, "-device", "virtio-blk-device,drive=root"]


def _job_args(disk: Path) -> list[str]:
    # format=raw always: probed, a job could carry a qcow2 header that names a file of the host. werror=report: the
    # default pauses the machine on a full disk until its deadline. Zeros and freed blocks become holes again.
    drive = f"if=none,id=job,file={_escaped(disk)},format=raw,cache=writeback,discard=unmap,detect-zeroes=unmap"
    errors = "werror=report,rerror=report"
    return ["-drive", f"{drive},{errors}", "-device", f"virtio-blk-device,drive=job,serial={guest.JOB_SERIAL}"]


def _wire_args(wires: Mapping[str, int]) -> list[str]:
    chardevs = [word for name, fd in wires.items() for word in ("-chardev", f"socket,id={name},fd={fd}")]
    return [
        *chardevs,
        *("-device", "virtio-serial-device"),
        *("-device", f"virtserialport,chardev=control,name={guest.CONTROL_PORT}"),
        *("-device", f"virtserialport,chardev=output,name={guest.OUTPUT_PORT}"),
        *("-serial", "chardev:console"),
    ]


def _sandbox_args() -> list[str]:
    return ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]


def _escaped(path: Path) -> str:
    # In QEMU's option lists a comma is written twice.
    return str(path).replace(",", ",,")


class Machine:
    """A QEMU process and the three wires out of it, followed by one thread from its start to its end."""

    def __init__(self, qemu: "subprocess.Popen[bytes]", wires: dict[str, socket.socket]) -> None:
        self.ending = Ending(report=guest.Report(), booted=time.time())
        self._qemu = qemu
        self._wires = wires
        self._selector = selectors.DefaultSelector()
        self._pidfd = os.pidfd_open(qemu.pid)
        self._messages = guest.Messages()
        self._deadlines: dict[Killed, float] = {}

    @classmethod
    @contextmanager
    def start(cls, shape: Shape, job_disk: Path) -> Iterator[Self]:
        """Start QEMU. On leaving the context it is dead and reaped, and its wires are closed.

        Raises MachineUnavailableError where there is no QEMU to start.
        """
        if process.find(shape.qemu) is None:
            raise MachineUnavailableError(f"{shape.qemu}: not installed; run: apt install qemu-system-x86")
        pairs = {name: socket.socketpair() for name in WIRES}
        fds = {name: theirs.fileno() for name, (_, theirs) in pairs.items()}
        try:
            qemu = process.spawn(argv(shape, job_disk, fds), pass_fds=tuple(fds.values()), stderr=subprocess.PIPE)
        except (CommandError, OSError) as error:
            for ours, _ in pairs.values():
                ours.close()
            raise MachineUnavailableError(f"QEMU can't be started: {error}; run: construir check") from error
        finally:
            for _, theirs in pairs.values():
                theirs.close()
        machine = cls(qemu, {name: ours for name, (ours, _) in pairs.items()})
        try:
            yield machine
        finally:
            machine._close()

    def run(self, assignment: Assignment, stop: socket.socket | None = None) -> Ending:
        """Have the machine do what it is for, and wait for its end; the logs are complete on return.

        It is killed at a deadline, and as soon as `stop` becomes readable.
        """
        with ExitStack() as stack:
            output = self._open_log(stack, assignment.output, assignment)
            console = self._open_log(stack, assignment.console, assignment)
            self._set_deadlines({"boot-timeout": assignment.boot_timeout_s})
            self._listen("control", lambda block: self._hear(block, assignment))
            self._listen("output", lambda block: self._note_output(block, output, assignment.idle_timeout_s))
            self._listen("console", console.write)
            if stop is not None:
                self._selector.register(stop, selectors.EVENT_READ, lambda: self._kill("stopped"))
            self._selector.register(self._pidfd, selectors.EVENT_READ, self._reap)
            self._follow()
            return self.ending

    @staticmethod
    def _open_log(stack: ExitStack, path: Path, assignment: Assignment) -> CappedLog:
        return stack.enter_context(closing(CappedLog(path, assignment.log_head_bytes, assignment.log_tail_bytes)))

    def _listen(self, name: str, take: Callable[[bytes], None]) -> None:
        wire = self._wires[name]
        wire.setblocking(False)
        self._selector.register(wire, selectors.EVENT_READ, lambda: self._receive(wire, take))

    def _follow(self) -> None:
        while self.ending.qemu_status is None:
            meaning, at = min(self._deadlines.items(), key=lambda deadline: deadline[1])
            left_s = at - time.monotonic()
            if left_s <= 0 and not self.ending.killed:
                self._kill(meaning)
            for key, _ in self._selector.select(None if self.ending.killed else left_s):
                key.data()
        # What it said last may still be on its way.
        for key in list(self._selector.get_map().values()):
            if key.fileobj in self._wires.values():
                while key.data():
                    pass

    def _receive(self, wire: socket.socket, take: Callable[[bytes], None]) -> bool:
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
        take(block)
        return True

    def _hear(self, block: bytes, assignment: Assignment) -> None:
        report = self.ending.report
        for line in self._messages.feed(block):
            was = msgspec.structs.replace(report)
            report.take(line)
            if report.ready and not was.ready:
                self._say(guest.go(assignment.hostname, assignment.filesystem))
            if report.started and not was.started:
                self.ending.started = time.time()
                self._set_deadlines({"timeout": assignment.timeout_s, "idle-timeout": assignment.idle_timeout_s})
            if report.finished() and not was.finished():
                self._set_deadlines({"power-off-timeout": _POWER_OFF_S})

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

    def _kill(self, why: Killed) -> None:
        if self.ending.killed is None:
            self.ending.killed = why
            os.killpg(self._qemu.pid, signal.SIGKILL)

    def _reap(self) -> None:
        _, status, usage = os.wait4(self._qemu.pid, 0)
        self._qemu.returncode = self.ending.qemu_status = os.waitstatus_to_exitcode(status)
        self.ending.ended = time.time()
        self.ending.cpu_seconds = usage.ru_utime + usage.ru_stime
        self.ending.peak_memory_bytes = usage.ru_maxrss * 1024
        self.ending.qemu_words = self._last_words()

    def _last_words(self) -> str:
        assert self._qemu.stderr is not None
        with self._qemu.stderr as stderr:
            os.set_blocking(stderr.fileno(), False)
            return (stderr.read() or b"").decode(errors="replace").strip()[-_QUOTED_CHARACTERS:]

    def _close(self) -> None:
        if self._qemu.returncode is None:
            self._kill("stopped")
            self._reap()
        self._selector.close()
        os.close(self._pidfd)
        for wire in self._wires.values():
            wire.close()
