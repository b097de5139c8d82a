"""Machines booted once and cloned for each job: a clone is at its job's first line in a fraction of a boot.

A template is a machine's memory and the state of its devices, taken where its guest waits for an order and has not
looked at any disk but the root. Both are sealed in memory: no clone, whatever becomes of it, can change
them for the next. A template is for one Shape only. Whatever is wrong with one, the job boots cold instead.

Jobs may ask for machines of any size, so only a few templates are kept, and one is built at a time. Only QEMU can.
"""

import fcntl
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import msgspec

from construir_ftp.errors import ConstruirError, StoppedError
from construir_ftp.image import baseimage
from construir_ftp.machine import qmp, rehearsal
from construir_ftp.machine.qemu import Ram
from construir_ftp.machine.qemu_engine import QemuEngine
from construir_ftp.machine.shape import Shape
from construir_ftp.machine.vm import Machine
from construir_ftp.machine.waiting import Boots, Source

log = logging.getLogger("construir.runner")

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
# The guest's kernel changes its mind about clocks in its first seconds; a clone must not wake up in the middle of that.
_SETTLE_S = 2.0
_STATE_S = 30.0
# After a template could not be built, it is not tried again for this long.
_RETRY_S = 300
# Some 90 MiB each: the usual machine, the same with disks for what a job depends on, and what else was used last.
_MOST_KEPT = 4
_CLONED = ("kvm", "tcg")
_CAPABILITIES = [{"capability": name, "state": True} for name in ("x-ignore-shared", "events")]


class DriveStats(msgspec.Struct):
    """What has become of a drive."""

    wr_operations: int


class Drive(msgspec.Struct):
    """One of what QEMU answers to query-blockstats."""

    device: str
    stats: DriveStats


class Template:
    """A machine to be cloned, until it is closed. Safe to use from several threads.

    As soon as `stop` is readable its own machine, and those that get ready to wait, are killed: StoppedError.
    """

    def __init__(self, shape: Shape, stop: socket.socket | None = None) -> None:
        self.shape, self._stop = shape, stop
        self._lock = threading.Lock()
        self._is_open = True
        # Why the last machine that was to wait did not get ready.
        self.fault = ""
        self._root = baseimage.hold(shape.base)
        self._ram = os.memfd_create("template-ram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._state = os.memfd_create("template-state", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)

    @classmethod
    def build(cls, shape: Shape, timeout_s: float, stop: socket.socket | None = None) -> "Template":
        """Boot a machine and keep it. Raises ConstruirError where it does not come up, or can't be kept."""
        template = cls(shape, stop)
        try:
            template._boot(timeout_s)
        except BaseException:
            template.close()
            raise
        return template

    def _boot(self, timeout_s: float) -> None:
        os.ftruncate(self._ram, self.shape.memory_bytes // 2**20 * 2**20)
        with _started(self.shape, Ram(self._ram, self._root, is_template=True)) as (machine, engine):
            machine.wait_until_ready(timeout_s, self._stop)
            self._settle()
            _save(engine.monitor(), self._state)
        # Only now: what is mapped to be written can't be sealed against it.
        for descriptor in (self._ram, self._state):
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)

    def _settle(self) -> None:
        if self._stop is None:
            time.sleep(_SETTLE_S)
        elif select.select([self._stop], [], [], _SETTLE_S)[0]:
            raise StoppedError("a template is not wanted any more")

    @contextmanager
    def clone(self) -> Iterator[Machine]:
        """A machine that waits for an order, its clock stopped. Raises ConstruirError, with nothing left running."""
        with self._clone() as (machine, _):
            yield machine

    @contextmanager
    def _clone(self) -> Iterator[tuple[Machine, QemuEngine]]:
        with ExitStack() as stack:
            with self._copies() as (ram, root, state):
                machine, engine = stack.enter_context(_started(self.shape, Ram(ram, root, is_template=False)))
                _load(engine.monitor(), state)
            machine.became("warm")
            yield machine, engine

    @contextmanager
    def _copies(self) -> Iterator[list[int]]:
        """Descriptors of its memory, its root disk and its state, that stay when it is closed meanwhile."""
        with self._lock:
            if not self._is_open:
                raise ConstruirError("the template has just been thrown away")
            copies = [os.dup(descriptor) for descriptor in (self._ram, self._root, self._state)]
        try:
            yield copies
        finally:
            for descriptor in copies:
                os.close(descriptor)

    @contextmanager
    def waiting(self) -> Iterator[Machine]:
        """A clone that has rehearsed and was stopped again: it burns no processor time until it gets its job."""
        with ExitStack() as stack:
            try:
                machine = self._get_ready(stack)
            except StoppedError:
                raise
            except ConstruirError as error:
                self.fault = str(error)
                raise
            yield machine

    def _get_ready(self, stack: ExitStack) -> Machine:
        machine, engine = stack.enter_context(self._clone())
        machine.rehearse(stack.enter_context(rehearsal.disk()), _STATE_S, self._stop)
        engine.monitor().ask("stop")
        machine.became("pooled")
        return machine

    def close(self) -> None:
        """Give the memory back, as soon as the clones made of it have ended. Closing it again does nothing."""
        with self._lock:
            if self._is_open:
                self._is_open = False
                for descriptor in (self._root, self._ram, self._state):
                    os.close(descriptor)


@contextmanager
def _started(shape: Shape, ram: Ram) -> Iterator[tuple[Machine, QemuEngine]]:
    with QemuEngine.start(shape, ram) as engine, Machine.following(shape, engine) as machine:
        yield machine, engine


def _save(monitor: qmp.Monitor, state: int) -> None:
    monitor.ask("stop")
    # What a clone takes over must not depend on a root disk that only its template has written to.
    written = [drive.device for drive in monitor.ask_for(list[Drive], "query-blockstats") if drive.stats.wr_operations]
    if written:
        raise ConstruirError(f"a machine without a job wrote to its disk ({', '.join(written)})")
    monitor.ask("migrate-set-capabilities", {"capabilities": _CAPABILITIES})
    monitor.ask("getfd", {"fdname": "state"}, fds=[state])
    monitor.ask("migrate", {"uri": "fd:state"})
    monitor.wait_for("MIGRATION", _STATE_S, status="completed")


def _load(monitor: qmp.Monitor, state: int) -> None:
    monitor.ask("migrate-set-capabilities", {"capabilities": _CAPABILITIES})
    own = os.open(f"/proc/self/fd/{state}", os.O_RDONLY | os.O_CLOEXEC)  # a reading position of its own
    try:
        monitor.ask("getfd", {"fdname": "state"}, fds=[own])
    finally:
        os.close(own)
    monitor.ask("migrate-incoming", {"uri": "fd:state"})
    monitor.wait_for("MIGRATION", _STATE_S, status="completed")


class Templates:
    """The templates of this process, at most one of each Shape, built in the background at their first use."""

    def __init__(self, build_timeout_s: float, when_built: Callable[[], None] = lambda: None) -> None:
        self._timeout_s = build_timeout_s
        self._when_built = when_built
        self._lock = threading.Lock()
        # By the key of their shape; what was used last comes last.
        self._built: dict[str, Template] = {}
        self._builder: threading.Thread | None = None
        self._not_before: dict[str, float] = {}
        self._stopped, self._stop = socket.socketpair()
        self._is_stopped = False

    def find(self, shape: Shape) -> Template | None:
        """The template of a shape; None while it, or another one, is being built, and where it can't be.

        One whose last machine did not get ready to wait is thrown away: jobs would hang in others.
        """
        if shape.accelerator not in _CLONED:
            return None
        key = shape.key()
        with self._lock:
            template = self._without_fault(self._built.pop(key, None))
            if template is not None:
                self._built[key] = template
            elif (
                not self._is_stopped and not self._is_building() and time.monotonic() >= self._not_before.get(key, 0.0)
            ):
                self._builder = threading.Thread(target=self._build, args=(shape, key), name="template")
                self._builder.start()
            return template

    def _without_fault(self, template: Template | None) -> Template | None:
        if template is None or not template.fault:
            return template
        log.warning(
            "template of %s thrown away: no machine of it gets ready: %s", template.shape.base.name, template.fault
        )
        template.close()
        return None

    def source(self, shape: Shape) -> Source | None:
        """What machines of a shape are made of that wait; None while there is no template of it, if it has some."""
        return self.find(shape) if shape.accelerator in _CLONED else Boots(shape, self._timeout_s, self._stopped)

    def _is_building(self) -> bool:
        return self._builder is not None and self._builder.is_alive()

    def discard(self, shape: Shape, why: str) -> None:
        """Throw away the template of a shape, after a machine made of it failed; the next use builds another."""
        with self._lock:
            template = self._built.pop(shape.key(), None)
        if template is not None:
            log.warning("template of %s thrown away: %s", shape.base.name, why)
            template.close()

    def stop(self) -> None:
        """End what is being built, and what gets ready to wait, and begin nothing more; jobs still get their clones."""
        with self._lock:
            if not self._is_stopped:
                self._is_stopped = True
                self._stop.send(b"!")

    def close(self) -> None:
        """Stop, and give all memory back."""
        self.stop()
        if self._builder is not None:
            self._builder.join()
        for template in self._built.values():
            template.close()
        for end in (self._stopped, self._stop):
            end.close()

    def _build(self, shape: Shape, key: str) -> None:
        begun = time.monotonic()
        try:
            template = Template.build(shape, self._timeout_s, self._stopped)
        except StoppedError:
            return
        except (ConstruirError, OSError) as error:
            log.warning("no template, machines boot cold for the next %d s: %s", _RETRY_S, error)
            with self._lock:
                self._not_before[key] = time.monotonic() + _RETRY_S
            return
        log.info("template of %s built in %.1f s", shape.base.name, time.monotonic() - begun)
        with self._lock:
            self._built[key] = template
            for old in [*self._outdated(), *list(self._built)[:-_MOST_KEPT]]:
                if (unused := self._built.pop(old, None)) is not None:
                    unused.close()
        self._when_built()

    def _outdated(self) -> list[str]:
        """The keys of those that no shape leads to any more: QEMU, or their base image, has become another one."""
        newest = {template.shape.base.name: template.shape.base for template in self._built.values()}
        return [
            key
            for key, template in self._built.items()
            if template.shape.key() != key or template.shape.base != newest[template.shape.base.name]
        ]
