"""The daemon that runs jobs: as many at once as there are slots, each in a thread of its own.

It is woken by the datagram of an admitted upload, by a machine that ends, and, because a datagram can be
lost, by a slow scan. It takes no job when asked to stop, while the disk is nearly full, or while machines don't come
up; uploads are still accepted then.
"""

import functools
import logging
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

from construir_ftp.config import Config
from construir_ftp.errors import ConstruirError, MachineUnavailableError
from construir_ftp.jail import check as jailcheck
from construir_ftp.jail import jail
from construir_ftp.jobs import job, places
from construir_ftp.jobs.disk_space import Room
from construir_ftp.jobs.job import Wants
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.machine import brake, capacity
from construir_ftp.machine.template import Templates
from construir_ftp.machine.vm import Machine
from construir_ftp.machine.waiting import Source
from construir_ftp.runner import priority, worker
from construir_ftp.runner import report as telling
from construir_ftp.runner.attempt import Attempt, Published, Requeued
from construir_ftp.runner.drain import UNWATCHED, Stop, Watch, drain, making_ready
from construir_ftp.runner.installs import Installs
from construir_ftp.runner.node import Node
from construir_ftp.runner.owner import Standstill
from construir_ftp.runner.pause import UNSIGNED, Pause
from construir_ftp.runner.resources import Resources, Supply
from construir_ftp.runner.shortage import PAUSE_S, Shortage
from construir_ftp.runner.slot import Slot
from construir_ftp.trust.seal import SigningError

log = logging.getLogger("construir.runner")


class Runner:
    """All of it, for one node of one spool, with the key that results are signed with."""

    def __init__(self, spool: Spool, config: Config, name: str = places.LOCAL) -> None:
        self._spool, self._config = spool, config
        self._node = Node(spool, name, config.nodes, config.runner.scan_every)
        self._slots = [Slot() for _ in range(config.runner.slots or capacity.slots(config.machine))]
        self._installs = Installs(config.layers.installs)
        self._all_slots = (*self._slots, *self._installs.places)
        self._templates = Templates(config.machine.boot_timeout, self._look_again)
        self._latest: Resources | None = None
        self._seal = self._node.seal(config.trust)
        self._supply = Supply(spool, config, self._templates, len(self._slots), self._seal)
        self._room = Room(spool, config.spool.min_free)
        self._waits_for_room = self._machines_fail = False
        self._stopping, self._pause = threading.Event(), Pause()
        self._finished, self._finish = socket.socketpair()
        self._standstill = Standstill(spool.path, config.runner)
        self._shortage = Shortage(spool)
        self._making_ready: Callable[[], AbstractContextManager[None]] = nullcontext

    def serve(self, stop: Stop, watch: Watch = UNWATCHED) -> None:
        """Run jobs until told to stop, or until they were taken from it; then no machine runs, and queue/ has the rest.

        Raises ConstruirError if another runner has the spool, or the node's name.
        """
        with ExitStack() as stack:
            wake = stack.enter_context(self._node.hold())
            self._report()
            for end in (self._finished, self._finish):
                stack.callback(end.close)
            stack.callback(brake.resume)
            stack.callback(self._templates.close)
            stack.enter_context(self._node.living(lambda: self._finish.send(b"!"), self._seal))
            stack.callback(self._drain, stop, watch)
            self._making_ready = functools.partial(making_ready, stop, watch, self._config.machine.boot_timeout)
            with self._making_ready():
                self._begin()
            watch.ready()
            self._loop(stop, wake, watch)

    @property
    def is_lost(self) -> bool:
        """Whether its jobs were taken from it: another one is to start."""
        return self._node.is_lost

    def _begin(self) -> None:
        priority.take(self._config.runner.priority)
        if left := len(jail.sweep()):
            log.warning("ended %d processes that an earlier runner had left", left)
        if self._config.jail.require_jail:
            jailcheck.demand(jail.host())
        for left_over in self._spool.recover():
            log.info("job %s: found unfinished, back in the queue", left_over.id)
        log.info("running jobs of %s; slots: %d", self._spool.path, len(self._slots))
        self._start_slots()

    def _start_slots(self) -> None:
        try:
            self._latest = self._supply.get()
            self._source()
        except (ConstruirError, OSError) as error:  # tried again when there is a job
            log.warning("no job could be run as it is: %s", error)
        for number, slot in enumerate(self._slots):
            keeps_one_ready = number < self._config.runner.waiting
            slot.start(self._work, lambda: self._finish.send(b"!"), self._source if keeps_one_ready else lambda: None)
        self._installs.start(self._prepare, lambda: self._finish.send(b"!"))

    def _source(self) -> Source | None:
        return self._latest.source() if self._latest else None

    def _loop(self, stop: Stop, wake: socket.socket, watch: Watch) -> None:
        with selectors.DefaultSelector() as selector:
            for source in (stop.told, wake, self._finished):
                selector.register(source, selectors.EVENT_READ)
            while not self._node.is_lost:
                with self._shortage.outlived():
                    self._look()
                watch.alive()
                ready = [key.fileobj for key, _ in selector.select(min(self._patience_s(), watch.alive_every_s))]
                if stop.told in ready:
                    return
                heard = {source: source.recv(4096) for source in (wake, self._finished) if source in ready}
                self._node.hear(heard.get(wake, b""))

    def _look(self) -> None:
        """See what is to be done, and do it; not, if its jobs were taken from it."""
        if self._node.look_lost():
            return
        self._shortage.give_back(self._installs.in_hand(self._slots))
        self._end_cancelled()
        self._standstill.heed()
        self._node.offer(self._supply.offered)
        self._fill_slots()
        self._report()

    def _patience_s(self) -> float:
        scan_s = PAUSE_S if self._shortage.lasts else self._node.scan_every_s
        return min(scan_s, self._pause.left_s or scan_s, self._standstill.patience_s())

    def _fill_slots(self) -> None:
        self._fill_installs()
        # First where a machine waits: another slot may still be getting one ready, and its job would wait for that.
        for slot in sorted(self._slots, key=lambda slot: not slot.is_ready):
            if not slot.is_busy and not self._give(slot, lambda record: not job.installs(record)):
                break
        self._fill_installs()  # a slot may have taken what kept the next install from beginning

    def _fill_installs(self) -> None:
        while (place := self._installs.free_place()) is not None and self._give(place, job.installs):
            pass

    def _give(self, slot: Slot, wants: Wants) -> bool:
        """Give a free slot the job whose turn it is; false if there is none, or none can be run now."""
        if self._pause.left_s or self._standstill.why:
            return False
        fits = self._node.fit.of(self._room.for_results(wants))
        prepared = None if slot in self._installs.places else self._installs.take()
        following = None if prepared else self._spool.next_id(fits)
        if prepared is None and (following is None or not self._node.takes_jobs() or not self._has_room(following)):
            return False
        try:
            # Looked at before each job: the image may have been built, replaced or damaged since the last one.
            with self._making_ready():
                resources = self._ready_resources()
        except BaseException as error:
            if prepared is not None:
                self._installs.add(prepared)
            if not isinstance(error, ConstruirError | OSError):
                raise  # such as a stop
            self._pause.begin_by(error)
            return False
        # Asked once more: to make ready can take minutes, and an operator may have decided otherwise meanwhile.
        task = prepared or (self._take(fits) if self._node.takes_jobs() else None)
        if task is None:
            return False
        taken = task.job if isinstance(task, Attempt) else task
        what = "for its packages" if slot in self._installs.places else "to run"
        log.info("job %s of %s: taken, %s", taken.id, taken.sender(), what)
        slot.give(resources, task)
        return True

    def _take(self, wants: Wants) -> Job | None:
        try:
            return self._spool.take(wants)
        except FileNotFoundError:
            if self._node.look_lost():
                return None
            raise

    def _end_cancelled(self) -> None:
        """Have the machines of cancelled jobs killed, and give those that wait their result, whatever else is wrong."""
        for slot in self._all_slots:
            running = slot.job
            if running is not None and running.is_cancelled():
                slot.kill()
        prepared = [attempt.job for attempt in self._installs.take_cancelled()]
        for cancelled in (*self._node.withdrawn(), *prepared):
            try:
                self._note(worker.publish_cancelled(self._spool, self._seal, cancelled))
            except (OSError, SigningError) as error:
                log.warning("job %s: cancelled, and tried again: its result can't be written: %s", cancelled.id, error)
                self._spool.requeue(cancelled)
                self._node.hear()
                if isinstance(error, SigningError):
                    self._pause.begin_by(error)

    def _report(self) -> None:
        """Let everyone know what is going on here, if it has changed; see status."""
        state = (self._slots, self._installs, self._latest, self._pause, self._standstill.why)
        self._node.report(telling.of(*state, waits=self._waits_for_room))

    def _tell(self, job: Job, doing: str, progress: str = "") -> None:
        """Have it reported what a job's slot does, and how far it is; for any thread."""
        for slot in self._all_slots:
            if slot.job is job and (slot.doing, slot.progress) != (doing, progress):
                slot.doing, slot.progress = doing, progress
                self._finish.send(b"!")

    def _look_again(self) -> None:
        for slot in self._slots:
            slot.look_again()

    def _has_room(self, following: str) -> bool:
        self._waits_for_room = not self._room.lets_start(following)
        if self._waits_for_room and not any(slot.is_busy for slot in self._all_slots):
            self._pause.begin("the disk is nearly full", "the disk is nearly full; make room, or lower spool.min_free")
        return not self._waits_for_room

    def _ready_resources(self) -> Resources:
        self._seal.demand_usable()
        resources = self._supply.get()
        if self._machines_fail:
            self._try_a_machine(resources)
        if self._latest is None or self._latest.shape().key() != resources.shape().key():
            self._latest = resources
            self._look_again()
        return resources

    def _try_a_machine(self, resources: Resources) -> None:
        """After a machine failed, no job is risked until an empty one comes up. Raises MachineUnavailableError."""
        worker.demand_empty_machine(resources)
        self._machines_fail = False
        log.info("an empty machine came up: taking jobs again")

    def _work(self, resources: Resources, task: Attempt | Job, killed: socket.socket, waiting: Machine | None) -> None:
        """Run a job, in its slot's thread."""
        with self._catching(task.job if isinstance(task, Attempt) else task):
            prepared = task if isinstance(task, Attempt) else self._prepared(resources, task, killed)
            if isinstance(prepared, Attempt):
                prepared = worker.run(resources, prepared, killed, functools.partial(self._wait, prepared.job), waiting)
            self._note(prepared)

    def _wait(self, job: Job, pause_s: float, error: Exception) -> bool:
        """Between attempts to publish a job, in its slot's thread: true means stop waiting."""
        if isinstance(error, SigningError):
            self._pause.begin_by(error)
            self._tell(job, UNSIGNED)
        return self._stopping.wait(pause_s)

    def _prepare(self, resources: Resources, task: Attempt | Job, killed: socket.socket, _: Machine | None) -> None:
        """Have the packages of a job installed, in its place's thread."""
        assert isinstance(task, Job), "what was prepared goes into a slot"
        with self._catching(task):
            prepared = self._prepared(resources, task, killed)
            if isinstance(prepared, Attempt):
                self._installs.add(prepared)
            else:
                self._note(prepared)

    def _prepared(self, resources: Resources, job: Job, killed: socket.socket) -> Attempt | Published | Requeued:
        return worker.prepare(resources, job, killed, functools.partial(self._tell, job))

    @contextmanager
    def _catching(self, job: Job) -> Iterator[None]:
        try:
            yield
        except MachineUnavailableError as error:
            self._machines_fail = True
            self._pause.begin("no machine can be started", str(error))
        except SigningError as error:
            worker.give_back(self._spool, job)
            self._pause.begin_by(error)
        except Exception as error:
            if self._shortage.leave(job, error):
                self._pause.begin("a job could not be finished", f"job {job.id}: to be given back: {error}")
            elif self._node.look_lost():
                log.info("job %s: others have it", job.id)
            else:
                # The thread's last line of defence: the job stays in running/, from where the next start takes it up.
                log.exception("job %s: left as it is until the next start", job.id)
                self._pause.begin("a job could not be finished", "a job could not be finished")

    def _note(self, outcome: Published | Requeued) -> None:
        if isinstance(outcome, Published):
            self._pause.forget()
            log.info("job %s: %s: %s", outcome.job.id, outcome.result.status, outcome.result.reason)
        elif outcome.fault and not outcome.hits_all:
            log.warning("job %s: back in the queue, for one more try: %s", outcome.job.id, outcome.fault)
        elif outcome.fault:
            self._machines_fail = True
            self._pause.begin("the last machine failed", f"job {outcome.job.id}: back in the queue: {outcome.fault}")
        else:
            log.info("job %s: back in the queue: the runner is stopping", outcome.job.id)

    def _drain(self, stop: Stop, watch: Watch) -> None:
        self._stopping.set()
        self._templates.stop()
        running = [slot.job.id for slot in self._all_slots if slot.job is not None]
        # What stands still does not end by itself.
        grace_s = 0.0 if self._standstill.why or self._node.is_lost else self._config.runner.grace
        log.info("stopping; %d jobs run, and have %g s to end: %s", len(running), grace_s, ", ".join(running) or "none")
        drain((*self._installs.places, *self._slots), grace_s, stop, watch)
        while (prepared := self._installs.take()) is not None:
            with self._catching(prepared.job):
                prepared.job.forgive_attempt()
                self._spool.requeue(prepared.job)
