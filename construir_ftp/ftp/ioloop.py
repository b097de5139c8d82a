"""pyftpdlib's event loop, except that what was cancelled is not called, and neither an error of one member nor its end
is another's.
"""

import logging
import os
import socket
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from pyftpdlib.ioloop import AsyncChat, IOLoop, _CallEvery, _CallLater

from construir_ftp.intake.check_threads import CheckThreads

# A connection that is idle is asked after a minute whether it is still there, which also keeps it in the tables of
# routers on the way; one that has vanished is given up after some four minutes more (tcp(7)).
_IDLE_S, _BETWEEN_S, _PROBES = 60, 30, 8


def keep_alive(sock: socket.socket) -> None:
    """Have the kernel look whether the other end is there while nothing is sent. What a socket accepts inherits it."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, _IDLE_S),
        (socket.TCP_KEEPINTVL, _BETWEEN_S),
        (socket.TCP_KEEPCNT, _PROBES),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


class _Later(_CallLater):  # type: ignore[misc] # pyftpdlib is untyped
    # Of several calls that are due together, one may cancel another. pyftpdlib has an assertion fail then.
    def call(self) -> None:
        if not self.cancelled:
            super().call()


class _Every(_CallEvery, _Later):  # type: ignore[misc]
    pass


class Loop(IOLoop):  # type: ignore[misc]
    """The event loop of one server."""

    def call_later(self, seconds: float, target: Callable[..., object], *args: object, **kwargs: Any) -> _Later:
        """Call `target` once, after so many seconds."""
        return _Later(seconds, target, *args, _scheduler=self.sched, **kwargs)

    def call_every(self, seconds: float, target: Callable[..., object], *args: object, **kwargs: Any) -> _Every:
        """Call `target` again and again, each time after so many seconds."""
        return _Every(seconds, target, *args, _scheduler=self.sched, **kwargs)

    def poll(self, timeout: float | None) -> None:
        """Wait so long, for ever if None, and have each member do what it is ready for.

        pyftpdlib leaves an exception of handle_close to whoever runs the loop, which would be the end of the server.
        And it goes by descriptors alone: were a member closed by another, and a connection accepted that gets its
        descriptor, then what had been said of the first, such as its end, would be taken for the second's.
        """
        events = self._poller.poll(-1 if timeout is None else timeout)
        meant = [(descriptor, self.socket_map.get(descriptor), event) for descriptor, event in events]
        for descriptor, member, event in meant:
            if member is not None and self.socket_map.get(descriptor) is member:
                try:
                    self._serve(member, event)
                except Exception:  # noqa: BLE001 - handle_error logs it, and closes the member
                    member.handle_error()

    def _serve(self, member: Any, event: int) -> None:
        if event & self._ERROR and not event & self.READ:
            member.handle_close()
            return
        if event & self.READ and member.readable():
            member.handle_read_event()
        if event & self.WRITE and member.writable():
            member.handle_write_event()


# -- the background ----------------------------------------------------------------------------------------------

# Threads beside an event loop, for all that takes longer than a few milliseconds; the answers come back into it.
# Checks of uploads can take minutes, so they have threads of their own: a login never waits behind one.
PASSWORDS_AT_ONCE = 2

log = logging.getLogger("construir.ftp")

T = TypeVar("T")


class Bell(AsyncChat):  # type: ignore[misc] # pyftpdlib is untyped
    """Has something done in the loop, from any thread or signal handler; the loop's own call_later is not for that."""

    def __init__(self, ioloop: Any) -> None:
        ours, self._theirs = socket.socketpair()
        self._theirs.setblocking(False)
        self._calls: deque[Callable[[], None]] = deque()
        super().__init__(ours, ioloop)

    def call(self, what: Callable[[], None]) -> None:
        """Have the loop's thread call `what` soon."""
        self._calls.append(what)
        # A full socket will wake the loop as well; a closed one has nobody to wake.
        with suppress(OSError):
            self._theirs.send(b"!")

    def answer(self) -> None:
        """Call what has been asked for. For the loop's thread."""
        while self._calls:
            what = self._calls.popleft()
            try:
                what()
            except Exception:
                log.exception("an error of ours in the event loop")

    def readable(self) -> bool:
        """Always: it is only ever read from."""
        return True

    def handle_read_event(self) -> None:
        """Called when it was rung."""
        self.socket.recv(4096)
        self.answer()

    def close(self) -> None:
        """Close both ends."""
        super().close()
        self._theirs.close()


class Background:
    """Pools of threads: `check` for uploads, `password` for passwords, `read` for listings, `quick` for the rest."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._checks = CheckThreads((os.cpu_count() or 1) + 2)
        self._passwords = ThreadPoolExecutor(PASSWORDS_AT_ONCE, "password")
        self._quick = ThreadPoolExecutor(2, "quick")
        # One: more would take the interpreter from the loop more often.
        self._reads = ThreadPoolExecutor(1, "read")
        # What is to be read, by whom it is for.
        self._lanes: OrderedDict[Hashable, deque[tuple[Callable[[], Any], Callable[[Any], None]]]] = OrderedDict()
        self._is_reading = False

    def check(self, whose: str, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Have a thread do `work` of a contributor's, and the loop call `then` with what it returned."""
        self._hand_over(self._checks.submit(whose, work), then)

    def password(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """The same, for what takes all processors for a moment."""
        self._run(self._passwords, work, then)

    def quick(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """The same, for what doesn't take long."""
        self._run(self._quick, work, then)

    def read(self, work: Callable[[], T], then: Callable[[T], None], of: Hashable = None) -> None:
        """The same, for a few milliseconds of reading, in turns among those whom it is for; `of` is anything."""
        self._lanes.setdefault(of, deque()).append((work, then))
        if not self._is_reading:
            self._read_next()

    def close(self) -> None:
        """Wait until all work is done, and the answers are given. For the loop's thread, after the loop has ended."""
        for lane in self._lanes.values():
            for work, then in lane:
                self._run(self._reads, work, then)
        self._lanes.clear()
        for pool in (self._checks, self._passwords, self._quick, self._reads):
            pool.shutdown()
        self._bell.answer()

    def _read_next(self) -> None:
        if not self._lanes:
            return
        of, lane = self._lanes.popitem(last=False)
        work, then = lane.popleft()
        if lane:
            self._lanes[of] = lane
        self._is_reading = True
        self._reads.submit(work).add_done_callback(lambda done: self._bell.call(lambda: self._have_read(done, then)))

    def _have_read(self, done: "Future[T]", then: Callable[[T], None]) -> None:
        self._is_reading = False
        try:
            then(done.result())
        finally:
            if not self._is_reading:
                self._read_next()

    def _run(self, pool: ThreadPoolExecutor, work: Callable[[], T], then: Callable[[T], None]) -> None:
        self._hand_over(pool.submit(work), then)

    def _hand_over(self, future: "Future[T]", then: Callable[[T], None]) -> None:
        future.add_done_callback(lambda done: self._bell.call(lambda: then(done.result())))
