"""Judges kept ready: a jail with a judge server in it, which has a fresh judge look at each upload.

    with JudgePool(limits) as judges:
        with judges.judge(path) as judge: ...        a file that has stopped growing
        judge = judges.follow(path)                 one that still grows, if there is room

Of the places of those that follow, one contributor has half at most. A contributor's first judge has the usual
priority, each further one a lower one: others' first judges come before it.

After a judge that crashed or hung its server gets no more uploads, and goes when the last of its judges does; the next
upload has a new one. A jail ends with the thread that started it, so each has one of its own. Safe to use
from several threads.
"""

import logging
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Self, cast

from construir_ftp.config import GateSection
from construir_ftp.errors import ConstruirError, MissingLibraryError, RefusedError, one_line
from construir_ftp.intake import verdict
from construir_ftp.intake.judge_handle import JudgeHandle
from construir_ftp.jail import cell, jail, seccomp

log = logging.getLogger(__name__)

# No file is longer (off_t).
ANY_SIZE = 2**63 - 1
# Whose a file is that is no contributor's; of those there may be as many as there are places.
NOBODY = ""
_FEWEST_FOLLOWED, _MOST_FOLLOWED = 4, 64
# Uploads that are whole are judged in so many threads at most; whoever has them.
_OTHER_JUDGES = (os.cpu_count() or 1) + 16
# A judge server is replaced after so many uploads: its children share one address layout, which nobody is to learn.
MOST_UPLOADS = 1000
_NEVER_CAME = "the judge's jail ended before the upload was looked at"


class JudgePool:
    """Judges for uploads within `limits` of `most_bytes` at most. To be closed, or used as a context.

    Raises MissingLibraryError where there is no python-magic: no jail is started that could only say the same.
    """

    def __init__(self, limits: GateSection, most_bytes: int = ANY_SIZE) -> None:
        # Looked for, not imported: libmagic is not to be in this process.
        if find_spec("magic") is None:
            raise MissingLibraryError("judging an upload", "magic")
        self._limits, self._most_bytes = limits, most_bytes
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._servers: set[_Server] = set()
        self._followed: Counter[str] = Counter()
        self._judged: Counter[str] = Counter()
        self._trouble = ""
        # How many uploads are followed at once; and after how many uploads a server is replaced.
        self.most_followed, self.most_uploads = most_followed(limits), MOST_UPLOADS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prepare(self) -> None:
        """Have a judge server ready soon."""
        with self._lock:
            self._open_server()

    def judge(self, path: Path, whose: str = NOBODY) -> JudgeHandle:
        """A judge for a file that is there. Raises OSError, and ConstruirError where there are too many already."""
        with self._lock:
            return self._begin(path, ANY_SIZE, whose, followed=False)

    def follow(self, path: Path, most_bytes: int = ANY_SIZE, whose: str = NOBODY) -> JudgeHandle | None:
        """A judge for a file that grows; None while as many are followed as there is memory for. Does not wait.

        None too where the contributor, `whose` it is, has half of the places. It may have `most_bytes` in the end, if
        that is not more than the pool's. Raises OSError.
        """
        with self._lock:
            return self._begin(path, most_bytes, whose, followed=True) if self._has_place(whose) else None

    def trouble(self) -> str:
        """Why no judge can be had, in words for the operator, as found last; empty if one can be."""
        return self._trouble

    def look_again(self) -> str:
        """The same, found out anew with a file that is no job. Takes `limits.timeout` at most; raises nothing."""
        with tempfile.TemporaryFile() as file:
            try:
                with self.judge(Path(f"/proc/self/fd/{file.fileno()}")) as judge:
                    judge.conclude(0, lambda: True)
            except RefusedError:
                self.note_trouble("")
            except (ConstruirError, OSError) as error:
                self.note_trouble(str(error))
        return self._trouble

    def note_trouble(self, why: str) -> None:
        """Note, and log where it is news, why no judge can be had; empty: one can be."""
        if why and why != self._trouble:
            log.error("no judge can be had: %s", why)
        elif self._trouble and not why:
            log.info("judges can be had again")
        self._trouble = why

    def close(self) -> None:
        """End all judge servers and judges; on return none is left. Handles that are not closed come to no verdict."""
        with self._lock:
            self._server = None
            servers = list(self._servers)
        for server in servers:
            server.end()

    def _has_place(self, whose: str) -> bool:
        if self._followed.total() >= self.most_followed:
            return False
        return whose == NOBODY or self._followed[whose] < max(1, self.most_followed // 2)

    def _begin(self, path: Path, most_bytes: int, whose: str, *, followed: bool) -> JudgeHandle:
        with ExitStack() as undo:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            undo.callback(os.close, file)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(ours.close)
            with theirs:
                server = self._send(file, theirs.fileno(), self._judged[whose] if whose != NOBODY else 0)
            undo.pop_all()
        self._followed[whose] += followed
        self._judged[whose] += 1
        return JudgeHandle(
            _Seat(self, server, whose, followed), file, ours, self._limits, min(most_bytes, self._most_bytes)
        )

    def _send(self, file: int, channel: int, others: int) -> "_Server":
        for _ in range(2):
            server = self._open_server()
            try:
                socket.send_fds(server.control, [verdict.priority(others)], [file, channel], socket.MSG_DONTWAIT)
            except BlockingIOError as error:
                raise ConstruirError("too many uploads wait for a judge") from error
            except (BrokenPipeError, ConnectionResetError):
                self._close_server(server)
                continue
            server.uploads += 1
            if server.uploads >= self.most_uploads or seccomp.reader() is None:
                self._close_server(server)
            return server
        raise server.error or ConstruirError("no judge can be had; try again")

    def _open_server(self) -> "_Server":
        if self._server is None:
            walls = _walls(self._limits, self.most_followed)
            self._server = _Server(_argv(self._limits), walls, self.note_trouble)
            self._servers = {server for server in self._servers if server.thread.is_alive()} | {self._server}
        return self._server

    def _close_server(self, server: "_Server") -> None:
        server.control.close()
        if self._server is server:
            self._server = None

    def leave(self, server: "_Server", whose: str, *, followed: bool, in_disorder: bool) -> None:
        """For a handle that is closed."""
        with self._lock:
            for count, less in ((self._followed, int(followed)), (self._judged, 1)):
                count[whose] -= less
                if not count[whose]:
                    del count[whose]
            if in_disorder:
                self._close_server(server)


class _Seat:
    """A handle's place in the pool."""

    def __init__(self, judges: JudgePool, server: "_Server", whose: str, followed: bool) -> None:
        self._judges, self._server, self._whose, self._followed = judges, server, whose, followed

    def failure(self) -> Exception:
        if self._server.error is None:  # which is noted where it is found
            self._judges.note_trouble(_NEVER_CAME)
        return self._server.error or ConstruirError(_NEVER_CAME)

    def leave(self, *, in_disorder: bool) -> None:
        self._judges.leave(self._server, self._whose, followed=self._followed, in_disorder=in_disorder)


class _Server:
    """One jail with a judge server, and its thread. What is sent by `control` before it is up waits for it there."""

    def __init__(self, argv: list[str], walls: cell.Cell, note_trouble: Callable[[str], None]) -> None:
        self.control, self._servers_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.error: Exception | None = None
        self.uploads = 0
        self._note_trouble = note_trouble
        self._stop, self._stopped = socket.socketpair()
        # A daemon, so that a process that ends in an error is not kept by it: the jail ends with the thread.
        self.thread = threading.Thread(target=self._hold, args=(argv, walls), name="judges", daemon=True)
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
                with jail.host().hold(
                    walls, argv, stdin=self._servers_end.fileno(), stderr=subprocess.PIPE
                ) as prisoner:
                    self._listen(cast(IO[bytes], prisoner.process.stderr).fileno())
            except (ConstruirError, OSError) as error:
                self.error = error
                self._note_trouble(str(error))
            finally:
                # Only now, and not by the jail's end alone: whoever sees that it is closed looks for the error.
                self._servers_end.close()

    def _listen(self, complaints: int) -> None:
        """Log what the judge server complains of, until it ends, or is to.

        Raises ConstruirError, with its last words, if it ends although more uploads may come.
        """
        last_words = ""
        poller = select.poll()
        poller.register(complaints, select.POLLIN)
        poller.register(self._stopped, select.POLLIN)
        while not any(descriptor == self._stopped.fileno() for descriptor, _ in poller.poll()):
            said = os.read(complaints, 4096)
            if not said and last_words and self.control.fileno() >= 0:
                raise ConstruirError(last_words)
            if not said:
                return
            for line in said.decode(errors="replace").splitlines():
                last_words = one_line(line)
                log.warning("the judge server says: %s", last_words)


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
    return cell.judge_server(judges=followed + _OTHER_JUDGES, memory_bytes=limits.max_memory, readable=cell.python())
