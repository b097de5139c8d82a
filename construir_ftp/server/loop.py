"""pyftpdlib's event loop, but for one thing: what was cancelled is not called."""

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
