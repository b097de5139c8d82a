"""One upload and its judge, from the FTP server's side: tells how far it has grown, and hears what the judge says.

The judge reads the file this holds open, by the same open file description, so that where it has come to can be
seen by lseek(2) and need not be asked. One thread at a time may use a handle.
"""

import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, Self

import msgspec

from construir_ftp.config import GateSection
from construir_ftp.errors import RefusedError
from construir_ftp.intake import verdict
from construir_ftp.intake.verdict import Answer, Refusal, Verdict

Wanted = Callable[[], bool]

_log = logging.getLogger(__name__)

_ANSWER_BYTES = 64 * 1024
_QUOTED_BYTES = 400
_ASK_EVERY_S = 1.0
_DEATH_S = 10.0


class Keeper(Protocol):
    """Where the judge works."""

    def failure(self) -> Exception:
        """Why a judge never came to look at its upload."""

    def leave(self, *, in_disorder: bool) -> None:
        """The handle is closed; `in_disorder` if its judge did not end as a judge should."""


class JudgeHandle:
    """Close it, or use it as a context: its judge is dead afterwards."""

    def __init__(self, place: Keeper, file: int, channel: socket.socket, limits: GateSection, most_bytes: int) -> None:
        self._place, self._file, self._channel = place, file, channel
        self._limits, self._most_bytes = limits, most_bytes
        channel.setblocking(False)
        self._pidfd: int | None = None
        self._said = b""
        self._answer: Answer | None = None
        self._in_disorder = False
        self._is_told_all = self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Becomes readable when there is something to hear."""
        return self._channel.fileno()

    def tell(self, size_bytes: int) -> None:
        """So many bytes are there, and more may come. Does not wait: a judge who is behind hears of it later."""
        self._tell(size_bytes, is_whole=False)

    def tell_all(self, size_bytes: int) -> None:
        """All of the upload, so many bytes, is there. Does not wait either: `conclude` tells a judge who is behind."""
        self._is_told_all = self._is_told_all or self._tell(size_bytes, is_whole=True)

    def behind_bytes(self, size_bytes: int) -> int:
        """How many of so many bytes the judge has not read yet."""
        return size_bytes - os.lseek(self._file, 0, os.SEEK_CUR)

    def heed(self) -> None:
        """Hear what has been said by now, without waiting. Raises RefusedError if the upload is refused already."""
        with suppress(BlockingIOError):
            while self._answer is None:
                self._hear()
        if isinstance(self._answer, Refusal):
            raise RefusedError(self._answer.reason, self._answer.reply, is_cut=self._answer.is_cut)

    def conclude(self, size_bytes: int, wanted: Wanted) -> Verdict:
        """All of the upload, so many bytes, is there: the verdict on it. Raises RefusedError if it isn't a job.

        Takes `limits.timeout` at most. `wanted` is asked every second whether anybody still waits; if not, it is
        refused (426). Raises ConstruirError if no judge could be had.
        """
        deadline = time.monotonic() + self._limits.timeout
        while self._answer is None:
            self.tell_all(size_bytes)
            self._wait(select.POLLIN if self._is_told_all else select.POLLIN | select.POLLOUT, deadline)
            if not wanted():
                raise no_longer_wanted()
            self.heed()
        self.heed()
        assert isinstance(self._answer, Verdict)
        return self._answer

    def close(self) -> None:
        """End the judge, if it lives, and give up its place."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._pidfd is None:
            self._cut_short()
        self._channel.close()
        os.close(self._file)
        if self._pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            # As long as it lives it holds the file, and the room that has on the disk.
            _poll(self._pidfd, select.POLLIN, _DEATH_S)
            os.close(self._pidfd)
        self._place.leave(in_disorder=self._in_disorder)

    def _cut_short(self) -> None:
        """The judge has greeted meanwhile, and can be ended, or fails to greet from now on, and ends by itself."""
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
            descriptors = self._receive()[1]
            self._pidfd = descriptors[0] if descriptors else None

    def _tell(self, size_bytes: int, is_whole: bool) -> bool:
        """Whether the message has been sent. What a judge who has ended would have said is for _hear to find out."""
        try:
            self._channel.send(verdict.message(size_bytes, self._most_bytes, is_whole))
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            return True
        return True

    def _wait(self, events: int, deadline: float) -> None:
        left_s = deadline - time.monotonic()
        if not _poll(self.fileno(), events, min(_ASK_EVERY_S, max(0.0, left_s))) and left_s <= 0:
            self._in_disorder = True
            raise verdict.too_late(self._limits)

    def _hear(self) -> None:
        """One message. A judge greets, and hands over a descriptor of itself, before it reads."""
        said, descriptors = self._receive()
        if self._pidfd is None:
            self._pidfd = descriptors[0] if descriptors else None
            if said != verdict.GREETING or self._pidfd is None:
                raise self._place.failure()
            return
        with suppress(msgspec.MsgspecError):
            self._answer = verdict.decode_answer(said)
            return
        self._said += said
        if not said or len(self._said) > _ANSWER_BYTES:
            raise self._gone()

    def _receive(self) -> tuple[bytes, list[int]]:
        """The next message, empty at the end. Descriptors are taken with the first one only."""
        wanted = 1 if self._pidfd is None else 0
        try:
            received = socket.recv_fds(self._channel, _ANSWER_BYTES, wanted, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            # Said once where the other end was closed with messages unread; what it said itself comes after that.
            received = socket.recv_fds(self._channel, _ANSWER_BYTES, wanted, socket.MSG_CMSG_CLOEXEC)
        return received[0], received[1]

    def _gone(self) -> RefusedError:
        self._in_disorder = True
        last_words = ascii(self._said[-_QUOTED_BYTES:].decode(errors="replace"))
        _log.warning("a judge ended without a verdict; it said %s", last_words)
        return RefusedError("checking it failed; if the image is sound, tell the operator")


def _poll(descriptor: int, events: int, timeout_s: float) -> bool:
    """Whether any of the events has come in time. select(2) knows no descriptor above 1023."""
    poller = select.poll()
    poller.register(descriptor, events)
    return bool(poller.poll(timeout_s * 1000))


def no_longer_wanted() -> RefusedError:
    """The refusal of an upload whose verdict nobody waits for any more."""
    return RefusedError("its connection is gone, or the server is stopping; send it again", 426)
