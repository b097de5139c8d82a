"""A slot: a thread that has one machine at a time, and lives as long as the runner.

While it has no job it keeps a machine ready, where there is something to make one of. A machine dies with the
thread that started it, so nothing here is handed from one thread to another but the job.
"""

import logging
import queue
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

from construir_ftp.errors import ConstruirError, StoppedError
from construir_ftp.jobs.spool import Job
from construir_ftp.machine.vm import Machine
from construir_ftp.machine.waiting import Source
from construir_ftp.runner.attempt import Attempt
from construir_ftp.runner.resources import Resources

log = logging.getLogger("construir.runner")

# What is done in a slot's thread with each job: also given where it is told to kill it, and the machine that was kept.
Work = Callable[[Resources, Attempt | Job, socket.socket, Machine | None], None]
# What a slot is told: a job to run, prepared or not, and where it is told to kill it; that there may be one to keep;
# or that there will be nothing more.
Task = tuple[Resources, Attempt | Job, socket.socket]
_LOOK_AGAIN = "look again"
_END = "end"
_NEXT_S = 0.05


class Slot:
    """A place for one machine at a time. Told what to do from the runner's thread; does it in its own."""

    def __init__(self) -> None:
        self._told: queue.SimpleQueue[Task | str] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._killer: socket.socket | None = None
        self.is_busy = False
        # A machine waits here, so that a job need not: only a hint, since it may be about to change.
        self.is_ready = False
        self.job: Job | None = None
        self.since = 0.0
        self.doing = self.progress = ""

    def start(
        self,
        work: Work,
        is_free: Callable[[], object],
        source: Callable[[], Source | None],
    ) -> None:
        """Begin. In the slot's thread `work` is called for each job, with a socket that is readable once it is to be
        killed, and the machine that was kept for it if there is one; `is_free` is called after it. `source` says
        what to make of the machine that is kept.
        """
        self._work, self._is_free, self._source = work, is_free, source
        self._thread = threading.Thread(target=self._live, name="slot")
        self._thread.start()

    def give(self, resources: Resources, task: Attempt | Job) -> None:
        """Have it run a job, which may have been prepared; only to be called while it is not busy."""
        job = task.job if isinstance(task, Attempt) else task
        if self._killer is not None:
            self._killer.close()
        killed, self._killer = socket.socketpair()
        self._killer.setblocking(False)
        self.is_busy, self.job, self.since = True, job, time.time()
        self.doing = self.progress = ""
        self._told.put((resources, task, killed))

    def kill(self) -> None:
        """Have the machine of its job killed, now or as soon as there is one. Calling it again changes nothing."""
        if self._killer is not None:
            with suppress(OSError):  # the job has ended, or has been told often enough
                self._killer.send(b"!")

    def look_again(self) -> None:
        """Tell it that there may be a machine to keep now."""
        self._told.put(_LOOK_AGAIN)

    def end(self) -> None:
        """Tell it to end once it is not busy; a machine that waits is killed."""
        self._told.put(_END)

    @property
    def lives(self) -> bool:
        """Whether its thread has not ended."""
        return self._thread is not None and self._thread.is_alive()

    def join(self, timeout_s: float | None) -> None:
        """Wait for its end."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def close(self) -> None:
        """Give back what is left, after its end."""
        if self._killer is not None:
            self._killer.close()

    def _live(self) -> None:
        more = True
        while more:
            try:
                more = self._live_through_one()
            except Exception:
                # A slot outlives whatever its machine does to it.
                log.exception("a machine could not be ended properly")

    def _live_through_one(self) -> bool:
        """Run a job, in the machine kept for it if there is one, or end a machine that no job would get any more; false
        when there are to be no more.
        """
        with ExitStack() as stack:
            told, machine = self._peek(), None
            while told is None or told == _LOOK_AGAIN:
                if machine is None:
                    machine = self._keep_ready(stack)
                    self.is_ready = machine is not None
                elif self._is_outdated(machine):
                    self.is_ready = False
                    return True
                told = self._told.get()
            if isinstance(told, str):
                return False
            resources, task, killed = told
            if machine is not None and machine.shape.key() != resources.shape().key():
                machine = None
            try:
                with killed:
                    self._work(resources, task, killed, machine)
            finally:
                self.job = None
                self.is_ready = self.is_busy = False
                self._is_free()
            return True

    def _peek(self) -> Task | str | None:
        # While jobs are waiting the next one comes at once, and is not to wait for the preparations for it.
        try:
            return self._told.get(timeout=_NEXT_S)
        except queue.Empty:
            return None

    def _is_outdated(self, machine: Machine) -> bool:
        source = self._source()
        return source is not None and source.shape.key() != machine.shape.key()

    def _keep_ready(self, stack: ExitStack) -> Machine | None:
        source = self._source()
        if source is None:
            return None
        try:
            return stack.enter_context(source.waiting())
        except StoppedError:
            return None
        except (ConstruirError, OSError) as error:
            log.warning("no machine waits: %s", error)
            return None
