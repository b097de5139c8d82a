"""pyftpdlib's event loop, except that what was cancelled is not called, and neither an error of one member nor its end
is another's.
"""

from collections.abc import Callable
from typing import Any

from pyftpdlib.ioloop import IOLoop, _CallEvery, _CallLater


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
