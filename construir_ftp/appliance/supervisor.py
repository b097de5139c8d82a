"""`construir serve`: its children, ftp, runner, janitor, site, news and pilots, which share nothing but the spool.

A child that ends is started again, after a growing pause; when this process is told to stop it tells them, and
when it dies they die with it.
"""

import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from construir_ftp import process
from construir_ftp.config import Config
from construir_ftp.errors import ConstruirError

log = logging.getLogger("construir")

_STOPS = (signal.SIGTERM, signal.SIGINT)
# Modules that take locks which all threads share, and how soon a stop that came within one of them is tried again.
_LOCKING = ("logging", "sh", "threading", "queue", "weakref")
_SOON_S = 0.02
PARTS = ("ftp", "runner", "janitor", "site", "news", "pilots")
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0
# A part that has lived this long has started well; its next pause is the shortest again.
_SETTLED_S = 5.0


def wanted(config: Config) -> list[str]:
    """All parts, but for those that have nobody to tell anything, or no Slurm."""
    unwanted = {"news": not config.notify.tells(), "pilots": not config.slurm.is_used()}
    return [part for part in PARTS if not unwanted.get(part)]


@contextmanager
def on_stop(call: Callable[[], object]) -> Iterator[None]:
    """While the context lasts, SIGTERM and SIGINT make the call, which has to be safe in a signal handler."""
    before = {number: signal.signal(number, lambda *_: call()) for number in (*_STOPS, signal.SIGALRM)}
    try:
        # Within: it may still pass a signal on when the context ends.
        with _heard_by_the_main_thread():
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _heard_by_the_main_thread() -> Iterator[None]:
    """Have the first stop interrupt what the main thread waits for, whichever thread the kernel has given it to.

    After a process was stopped (SIGSTOP) and goes on, that may be any (kernel/signal.c, complete_signal). Handlers run
    in the main thread only, which would not wake up for it.
    """
    taken, writer = socket.socketpair()
    writer.setblocking(False)

    def pass_on() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        while number := taken.recv(1):
            if number[0] in _STOPS:
                # This writes to the socket again, and is enough for good: the call has been made.
                signal.pthread_kill(main, number[0])
                return

    main = threading.get_ident()
    passing = threading.Thread(target=pass_on, name="signals", daemon=True)
    passing.start()
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writer.close()
        passing.join()
        taken.close()


class Stopped(BaseException):
    """The stop came in the midst of something long, which is left as a kill -9 would leave it."""


class Stop:
    """A stop that is asked for by SIGTERM or SIGINT. `socket` becomes readable then, and stays so."""

    def __init__(self, reader: socket.socket, writer: socket.socket) -> None:
        self.socket, self._writer = reader, writer
        self._has_come = self._interrupts = False

    def come(self) -> None:
        """The signal's handler."""
        self._has_come = True
        with suppress(OSError):  # the socket is full of them
            self._writer.send(b"!")
        if not self._interrupts:
            return
        if _holds_locks(sys._getframe()):
            signal.setitimer(signal.ITIMER_REAL, _SOON_S)
            return
        self._interrupts = False
        raise Stopped

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """What takes long, in the main thread, and may be broken off at any line: a stop raises Stopped in it."""
        self._interrupts = True
        try:
            if self._has_come:
                raise Stopped
            yield
        finally:
            self._interrupts = False


def _holds_locks(frame: FrameType | None) -> bool:
    """Whether what is being interrupted may hold a lock that all others need: it would never be given back."""
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _LOCKING:
            return True
        frame = frame.f_back
    return False


@contextmanager
def listening() -> Iterator[Stop]:
    """While the context lasts, SIGTERM and SIGINT are a Stop. One that interrupts ends it, and is no error then."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    stop = Stop(reader, writer)
    with reader, writer, on_stop(stop.come), suppress(Stopped):
        yield stop


@contextmanager
def stop_signal() -> Iterator[socket.socket]:
    """A socket that becomes readable, and stays so, once SIGTERM or SIGINT has come."""
    with listening() as stop:
        yield stop.socket


class _Part:
    """One child and its restarts."""

    def __init__(self, name: str, arguments: Sequence[str], claim: int) -> None:
        self.name, self._claim = name, claim
        self._argv = process.ourselves(*arguments, name, f"--parent={os.getpid()}")
        self._pause_s = _FIRST_PAUSE_S
        self.child: subprocess.Popen[bytes] | None = None
        self.pidfd = -1
        self.start_at = 0.0
        self.never_settled = True
        self._started = 0.0

    def start(self) -> None:
        # The environment is ours: what the configuration takes from it, the parts have to see too.
        self.child = process.spawn(
            self._argv,
            pass_fds=[self._claim],
            env=dict(os.environ),
            stdout=sys.stdout.fileno(),
            stderr=sys.stderr.fileno(),
        )
        self.pidfd = os.pidfd_open(self.child.pid)
        self._started = time.monotonic()

    def reap(self) -> int:
        """Note the child's end; returns its exit status. `start_at` then says when to start it again."""
        assert self.child is not None
        status = self.child.wait()
        os.close(self.pidfd)
        self.child = None
        lived_s = time.monotonic() - self._started
        self.never_settled = self.never_settled and lived_s < _SETTLED_S
        self._pause_s = _FIRST_PAUSE_S if lived_s >= _SETTLED_S else min(_LONGEST_PAUSE_S, self._pause_s * 2)
        self.start_at = time.monotonic() + self._pause_s
        return status


def supervise(names: Sequence[str], arguments: Sequence[str], stop: socket.socket, claim: int) -> None:
    """Keep the parts of these names running until `stop` is readable; then end them and wait for it.

    `arguments` are what this command was given, "serve" and its options: each part is given the same, and the
    descriptor `claim`, which says that it lives (see claim). A part that gives up in its first life, with a word of its
    own, ends the rest (ConstruirError): a port that is taken, or a second runner on one spool, is for whoever started
    this to see. Once a part has settled it is always started again.
    """
    parts = [_Part(name, arguments, claim) for name in names]
    with selectors.DefaultSelector() as selector:
        selector.register(stop, selectors.EVENT_READ)
        try:
            while True:
                _start_due(parts, selector)
                ready = selector.select(_patience_s(parts))
                if any(key.fileobj is stop for key, _ in ready):
                    log.info("told to stop: ending %s", ", ".join(names))
                    return
                for key, _ in ready:
                    _restart_later(key.data, selector)
        finally:
            _end(parts)


def _start_due(parts: Sequence[_Part], selector: selectors.BaseSelector) -> None:
    for part in parts:
        if part.child is None and time.monotonic() >= part.start_at:
            part.start()
            selector.register(part.pidfd, selectors.EVENT_READ, part)


def _patience_s(parts: Sequence[_Part]) -> float | None:
    due = [part.start_at for part in parts if part.child is None]
    return max(0.0, min(due) - time.monotonic()) if due else None


def _restart_later(part: _Part, selector: selectors.BaseSelector) -> None:
    selector.unregister(part.pidfd)
    status = part.reap()
    if status > 0 and part.never_settled:
        raise ConstruirError(f"{part.name} can't run here; its own message is above")
    log.error(
        "%s ended with status %d; starting it again in %.1f s", part.name, status, part.start_at - time.monotonic()
    )


def _end(parts: Sequence[_Part]) -> None:
    for part in parts:
        if part.child is not None:
            part.child.send_signal(signal.SIGTERM)
    for part in parts:
        if part.child is not None:
            part.reap()
    log.info("stopped")
