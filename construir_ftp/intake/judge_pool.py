"""Judges kept ready: a jail with a clerk in it, who has a fresh judge look at each upload.

    with Court(limits) as court:
        with court.hear(path) as hearing: ...        a file that has stopped growing
        hearing = court.follow(path)                 one that still grows, if there is room

After a judge that crashed or hung the clerk gets no more uploads, and goes when the last of its judges does; the next
upload has a new one. A jail ends with the thread that started it, so each has one of its own. Safe to use
from several threads.
"""

import logging
import os
import select
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Self, cast

from construir_ftp.config import GateSection
from construir_ftp.errors import ConstruirError
from construir_ftp.intake import verdict
from construir_ftp.intake.judge_handle import Hearing
from construir_ftp.jail import cell, jail, seccomp

log = logging.getLogger(__name__)

# No file is longer (off_t).
_ANY_SIZE = 2**63 - 1
_FEWEST_FOLLOWED, _MOST_FOLLOWED = 4, 64
# Uploads that are whole are judged in so many threads at most; whoever has them.
_OTHER_JUDGES = (os.cpu_count() or 1) + 16
# A clerk is replaced after so many uploads: its children share one layout of memory, which nobody is to learn in time.
_MOST_UPLOADS = 1000


class Court:
    """Judges for uploads within `limits` of `most_bytes` at most. To be closed, or used as a context."""

    def __init__(self, limits: GateSection, most_bytes: int = _ANY_SIZE) -> None:
        self._limits, self._most_bytes = limits, most_bytes
        self._lock = threading.Lock()
        self._room: _Room | None = None
        self._rooms: set[_Room] = set()
        self._followed = 0
        self._most_followed = most_followed(limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prepare(self) -> None:
        """Have a clerk ready soon."""
        with self._lock:
            self._open_room()

    def hear(self, path: Path) -> Hearing:
        """A hearing of a file that is there. Raises OSError, and ConstruirError where there are too many already."""
        with self._lock:
            return self._begin(path, _ANY_SIZE, followed=False)

    def follow(self, path: Path, most_bytes: int = _ANY_SIZE) -> Hearing | None:
        """A hearing of a file that grows; None while as many are followed as there is memory for. Does not wait.

        It may have `most_bytes` in the end, if the court allows so many. Raises OSError.
        """
        with self._lock:
            return self._begin(path, most_bytes, followed=True) if self._followed < self._most_followed else None

    def close(self) -> None:
        """End all clerks and judges; on return none is left. Hearings that are not over end without a verdict."""
        with self._lock:
            self._room = None
            rooms = list(self._rooms)
        for room in rooms:
            room.end()

    def _begin(self, path: Path, most_bytes: int, *, followed: bool) -> Hearing:
        with ExitStack() as undo:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            undo.callback(os.close, file)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(ours.close)
            with theirs:
                room = self._send(file, theirs.fileno())
            undo.pop_all()
        self._followed += followed
        return Hearing(_Seat(self, room, followed), file, ours, self._limits, min(most_bytes, self._most_bytes))

    def _send(self, file: int, channel: int) -> "_Room":
        for _ in range(2):
            room = self._open_room()
            try:
                socket.send_fds(room.control, [b"?"], [file, channel], socket.MSG_DONTWAIT)
            except BlockingIOError as error:
                raise ConstruirError("too many uploads wait for a judge") from error
            except (BrokenPipeError, ConnectionResetError):
                self._close_room(room)
                continue
            room.uploads += 1
            if room.uploads >= _MOST_UPLOADS or seccomp.reader() is None:
                self._close_room(room)
            return room
        raise room.error or ConstruirError("no judge can be had; try again")

    def _open_room(self) -> "_Room":
        if self._room is None:
            self._room = _Room(_argv(self._limits), _walls(self._limits, self._most_followed))
            self._rooms = {room for room in self._rooms if room.thread.is_alive()} | {self._room}
        return self._room

    def _close_room(self, room: "_Room") -> None:
        room.control.close()
        if self._room is room:
            self._room = None

    def leave(self, room: "_Room", *, followed: bool, in_disorder: bool) -> None:
        """For a hearing that is over."""
        with self._lock:
            self._followed -= followed
            if in_disorder:
                self._close_room(room)


class _Seat:
    """A hearing's place in the court."""

    def __init__(self, court: Court, room: "_Room", followed: bool) -> None:
        self._court, self._room, self._followed = court, room, followed

    def failure(self) -> Exception:
        return self._room.error or ConstruirError("the judge's jail ended before the upload was looked at")

    def leave(self, *, in_disorder: bool) -> None:
        self._court.leave(self._room, followed=self._followed, in_disorder=in_disorder)


class _Room:
    """One jail with a clerk, and its thread. What is sent by `control` before the clerk is up waits for it there."""

    def __init__(self, argv: list[str], walls: cell.Cell) -> None:
        self.control, self._clerks_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.error: Exception | None = None
        self.uploads = 0
        self._stop, self._stopped = socket.socketpair()
        # A daemon, so that a process that ends in an error is not kept by it: the jail ends with the thread.
        self.thread = threading.Thread(target=self._hold, args=(argv, walls), name="court", daemon=True)
        self.thread.start()

    def end(self) -> None:
        """End the jail, and wait for it."""
        self.control.close()
        with suppress(OSError):
            self._stop.send(b"!")
        self.thread.join()

    def _hold(self, argv: list[str], walls: cell.Cell) -> None:
        with self._stop, self._stopped:
            try:
                with jail.host().hold(walls, argv, stdin=self._clerks_end.fileno(), stderr=subprocess.PIPE) as prisoner:
                    self._clerks_end.close()
                    self._listen(cast(IO[bytes], prisoner.process.stderr).fileno())
            except (ConstruirError, OSError) as error:
                self.error = error
                log.error("no judge can be had: %s", error)  # noqa: TRY400 - the message says it all
            finally:
                # Only now: whoever sees that the other end is closed looks for the error.
                self._clerks_end.close()

    def _listen(self, complaints: int) -> None:
        """Log what the clerk complains of, until it ends, or is to."""
        poller = select.poll()
        poller.register(complaints, select.POLLIN)
        poller.register(self._stopped, select.POLLIN)
        while not any(descriptor == self._stopped.fileno() for descriptor, _ in poller.poll()):
            said = os.read(complaints, 4096)
            if not said:
                return
            for line in said.decode(errors="replace").splitlines():
                log.warning("%a", line)


def most_followed(limits: GateSection) -> int:
    """How many uploads are followed at once: as many as half of this machine's memory holds, at their worst."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(_MOST_FOLLOWED, max(_FEWEST_FOLLOWED, memory_bytes // 2 // limits.max_memory))


def _argv(limits: GateSection) -> list[str]:
    program = (seccomp.reader() or b"").hex()
    return [
        *(sys.executable, "-I", "-m", "construir_ftp.intake.judge_server"),
        *(verdict.encode_limits(limits), program),
    ]


def _walls(limits: GateSection, followed: int) -> cell.Cell:
    return cell.court(judges=followed + _OTHER_JUDGES, memory_bytes=limits.max_memory, readable=cell.python())
