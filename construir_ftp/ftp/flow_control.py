"""Flow control: stops reading an upload while its judge is behind, and breaks it off when it is refused, or too slow.

xz and bzip2 unpack slower than a fast network sends. Were all of it taken in at once, the client would wait for the
verdict after its last byte, and no client waits long. So nothing is read while the judge is behind.
"""

import logging
import socket
import time
from collections.abc import Callable
from typing import Any

from construir_ftp.config import FtpSection
from construir_ftp.errors import RefusedError
from construir_ftp.intake.live_check import LEAST_BEHIND_BYTES
from construir_ftp.intake.upload import Upload
from construir_ftp.jobs.reply import Reply

log = logging.getLogger("construir.ftp")

_LOOK_EVERY_S = 0.02
# Something is read this often, however far behind the judge is: some clients give up on a connection that stands
# still for 20 s.
_LONGEST_PAUSE_S = 5.0


class FlowControl:
    """Of one data connection, `channel`; `refuse` is called when the judge has refused the upload. To be closed."""

    def __init__(self, channel: Any, refuse: Callable[[RefusedError], None]) -> None:
        self._channel, self._refuse = channel, refuse
        self._watch: _Watch | None = None
        self._pause: Any = None

    def after(self, upload: Upload, *, must_pause: bool) -> None:
        """After each piece that was received: `must_pause` is what the upload has said to it."""
        self._watch_verdict(upload)
        if must_pause:
            # What lies in the kernel's memory counts too: by itself it grows to 6 MB (tcp(7): tcp_rmem).
            self._channel.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, LEAST_BEHIND_BYTES)
            self._channel.del_channel()
            self._wait(upload, time.monotonic() + _LONGEST_PAUSE_S)

    def close(self) -> None:
        """The connection is closed."""
        if self._pause is not None and not self._pause.cancelled:
            self._pause.cancel()
        if self._watch is not None:
            self._watch.close()

    def _watch_verdict(self, upload: Upload) -> None:
        fileno = upload.verdict_fileno()
        if self._watch is None and fileno is not None:
            self._watch = _Watch(self._channel.ioloop, fileno, lambda: self._heed(upload))
        elif self._watch is not None and fileno is None:
            # Its descriptor is closed, and will be somebody else's.
            self._watch.close()

    def _heed(self, upload: Upload) -> None:
        try:
            upload.heed()
        except RefusedError as refused:
            self._refuse(refused)
        if upload.verdict_fileno() is None and self._watch is not None:
            self._watch.close()

    def _wait(self, upload: Upload, until: float) -> None:
        def look() -> None:
            if upload.is_behind(part=0.5) and time.monotonic() < until:
                self._wait(upload, until)
            else:
                self._channel.add_channel(events=self._channel.ioloop.READ)
                # What TLS has unpacked already wakes nobody.
                self._channel.handle_read()

        self._pause = self._channel.ioloop.call_later(_LOOK_EVERY_S, look, _errback=self._channel.handle_error)


class _Watch:
    """Calls when a judge has said something. What pyftpdlib's loop asks of its members."""

    def __init__(self, ioloop: Any, fileno: int, call: Callable[[], None]) -> None:
        self._ioloop, self._fileno, self._call = ioloop, fileno, call
        ioloop.register(self._fileno, self, ioloop.READ)
        self._is_closed = False

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        self._call()

    handle_close = handle_read_event

    def handle_error(self) -> None:
        log.exception("an error of ours in the event loop")
        self.close()

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._ioloop.unregister(self._fileno)


# -- pace --------------------------------------------------------------------------------------------------------


# How long an upload may take: fast enough on average, and done in time, or it loses its place.
# That nothing at all comes for `ftp.idle_timeout` is noticed elsewhere; a byte now and then would go on for ever.
class Pace:
    """Watches one upload from now on, until `stop`; calls `break_off` with the reply if it is too slow, or late."""

    def __init__(
        self, ioloop: Any, ftp: FtpSection, received_bytes: Callable[[], int], break_off: Callable[[Reply], None]
    ) -> None:
        self._ftp, self._received_bytes, self._break_off = ftp, received_bytes, break_off
        self._before_bytes = received_bytes()
        self._tasks = [
            ioloop.call_later(ftp.upload_timeout, self._is_late),
            ioloop.call_every(ftp.upload_rate_window, self._look),
        ]

    def stop(self) -> None:
        """The upload has come to its end."""
        for task in self._tasks:
            if not task.cancelled:
                task.cancel()

    def _look(self) -> None:
        before_bytes, self._before_bytes = self._before_bytes, self._received_bytes()
        if self._before_bytes - before_bytes < self._ftp.min_upload_rate * self._ftp.upload_rate_window:
            window = f"{self._ftp.upload_rate_window:g} s"
            self._break_off(Reply(426, f"Slower than {self._ftp.min_upload_rate} bytes per second, over {window}."))

    def _is_late(self) -> None:
        self._break_off(Reply(426, f"Not done after {self._ftp.upload_timeout:g} s."))
