"""One job from running/ to done/: allocate what it needs, boot a machine with its disk, pack what it left, publish.

A fault of ours sends the job back to queue/, a third one ends it as `lost`. What the job does to its machine is
a result like any other. Nothing here decides which job is next.
"""

import errno
import logging
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import msgspec

from construir_ftp.config import ArtifactsSection, MachineSection
from construir_ftp.diskimage import codec
from construir_ftp.errors import ConstruirError, MachineUnavailableError
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs import request
from construir_ftp.jobs.result import ARTIFACTS
from construir_ftp.jobs.spool import MAX_ATTEMPTS, Job, Spool
from construir_ftp.layers.resolver import DependencyError, Offer
from construir_ftp.machine import outcome
from construir_ftp.machine.accelerator import Choice
from construir_ftp.machine.capacity import Spare
from construir_ftp.machine.outcome import OurFault, Outcome
from construir_ftp.machine.shape import Shape
from construir_ftp.machine.template import Templates
from construir_ftp.machine.vm import Ending, Machine
from construir_ftp.runner import artifacts
from construir_ftp.runner.allocation import CODEC_S, Allocation
from construir_ftp.runner.attempt import Attempt, Published, Requeued
from construir_ftp.runner.publish import publish

log = logging.getLogger("construir.runner")

# A guest that has booted already is at run.sh in milliseconds; one that isn't there by then never will be.
_QUICK_BOOT_S = 15.0

Wait = Callable[[float], bool]
Tell = Callable[[str], None]


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What jobs of a spool are run with, until something of it changes; several threads may use it at once."""

    spool: Spool
    base: BaseImage
    machine: MachineSection
    accelerator: Choice
    max_disk_bytes: int
    artifact_limits: ArtifactsSection
    offer: Offer
    spare: Spare
    templates: Templates | None = None

    def shape(self) -> Shape:
        """The machine that jobs get."""
        return Shape.of(self.machine, self.base, self.accelerator.accelerator, self.max_disk_bytes)


def run(
    resources: Resources,
    job: Job,
    stop: socket.socket,
    wait: Wait,
    waiting: Machine | None = None,
    tell: Tell = lambda _doing: None,
) -> Published | Requeued:
    """Run a job that was just taken. As soon as `stop` is readable its machine is killed, and it is requeued, or
    published as cancelled if that is why.

    `wait(seconds)` is called between attempts to write a result to a full disk; true means stop waiting. `waiting`
    is a machine of the usual shape that has been kept for it. `tell(doing)` is called with what keeps the job from its
    machine, in words for anyone, and with nothing once nothing does. Raises MachineUnavailableError where no
    machine can be started: the job is back in queue/, uncounted.
    """
    try:
        attempt = Attempt.of(job)
    except ConstruirError as error:
        return publish(resources.spool, Attempt.of_any(job), Outcome("lost", str(error)))
    if job.is_cancelled():
        return publish_cancelled(resources.spool, job)
    if job.attempts() >= MAX_ATTEMPTS:
        return _give_up(resources, attempt, f"given up after {job.attempts()} attempts; see the appliance's log")
    job.count_attempt()
    try:
        wanted = request.read(attempt.record.construir_toml)
        allocation = Allocation.settle(resources.offer, resources.shape(), wanted, stop, tell)
        tell("")
    except DependencyError as error:
        if stopped(stop):
            return _stop(resources, attempt)
        return publish(resources.spool, attempt, Outcome("dependency-failed", str(error)))
    except (ConstruirError, OSError) as error:
        return _excuse(resources, attempt, error)
    extra_bytes = allocation.extra_memory_bytes(resources.shape())
    with resources.spare.lend(extra_bytes, lambda: stopped(stop)) as has_memory:
        if not has_memory:
            return _stop(resources, attempt)
        attempt.allocation = allocation
        return _run_allocated(resources, attempt, allocation, stop, wait, waiting)


def stopped(stop: socket.socket) -> bool:
    """Whether the machine is to be killed, or not to be started."""
    return bool(select.select([stop], [], [], 0)[0])


def publish_cancelled(spool: Spool, job: Job) -> Published:
    """Publish a job that was taken and is not to be run. After an OSError it is still running, as after any other."""
    return publish(spool, Attempt.of_any(job), Outcome("cancelled", "cancelled by its contributor before it ran"))


# -- the machine -----------------------------------------------------------------------------------------------


def _run_allocated(
    resources: Resources,
    attempt: Attempt,
    allocation: Allocation,
    stop: socket.socket,
    wait: Wait,
    waiting: Machine | None,
) -> Published | Requeued:
    try:
        ending = attempt.ending = _boot(resources, attempt, allocation, stop, waiting)
    except (ConstruirError, OSError) as error:
        return _excuse(resources, attempt, error)
    if ending.killed == "stopped":
        if not attempt.job.is_cancelled():
            return _stop(resources, attempt)
        words = "cancelled by its contributor while it ran; the machine was killed"
        return _collect(resources, attempt, allocation, Outcome("cancelled", words), wait)
    judged = outcome.judge(ending)
    if isinstance(judged, Outcome):
        return _collect(resources, attempt, allocation, judged, wait)
    if attempt.job.attempts() >= MAX_ATTEMPTS:
        return _give_up(resources, attempt, judged.reason)
    return Requeued(resources.spool.requeue(attempt.job), judged.reason)


def _boot(
    resources: Resources, attempt: Attempt, allocation: Allocation, stop: socket.socket, waiting: Machine | None
) -> Ending:
    """Run the job in the quickest machine there is; if that one fails us, in a machine booted for it."""
    boot_s = resources.machine.boot_timeout
    for machine in _quick_machines(resources, allocation.shape, waiting):
        try:
            with machine as quick:
                ending = _give(resources, attempt, allocation, quick, stop, min(_QUICK_BOOT_S, boot_s))
            fault = outcome.judge(ending)
            if ending.killed == "stopped" or not isinstance(fault, OurFault):
                return ending
            why = fault.reason
        except ConstruirError as error:
            why = str(error)
        log.warning("job %s: booting a machine for it, since a quick one failed: %s", attempt.job.id, why)
        if resources.templates is not None:
            resources.templates.discard(allocation.shape, why)
    with Machine.start(allocation.shape) as booted:
        return _give(resources, attempt, allocation, booted, stop, boot_s)


def _quick_machines(
    resources: Resources, shape: Shape, waiting: Machine | None
) -> Iterator[AbstractContextManager[Machine]]:
    """The one that waits, if it is what is needed, or else a clone; none where there is no template."""
    if waiting is not None and waiting.shape.key() == shape.key():
        yield nullcontext(waiting)
        return
    template = resources.templates.find(shape) if resources.templates is not None else None
    if template is not None:
        yield template.clone()


def _give(
    resources: Resources,
    attempt: Attempt,
    allocation: Allocation,
    machine: Machine,
    stop: socket.socket,
    boot_timeout_s: float,
) -> Ending:
    """Unpack the job, while the machine comes up, and have it run."""
    job, record = attempt.job, attempt.record
    job.strip()
    allocation.unpack(job.upload, record, job)
    allocation.note(job, resources.machine)
    log.info("job %s: attempt %d, in a %s machine", job.id, job.attempts(), machine.ending.boot_path)
    try:
        return machine.run(allocation.assignment(job, record, resources.machine, boot_timeout_s), stop)
    finally:
        allocation.forget(job)


# -- what becomes of the job -----------------------------------------------------------------------------------


def _stop(resources: Resources, attempt: Attempt) -> Requeued | Published:
    """It is not wanted any more, or not by us: in that case it has lost nothing."""
    if attempt.allocation is None and attempt.job.is_cancelled():
        return publish_cancelled(resources.spool, attempt.job)
    attempt.job.forgive_attempt()
    return Requeued(resources.spool.requeue(attempt.job), "")


def _excuse(resources: Resources, attempt: Attempt, error: Exception) -> Requeued:
    """The job never got a machine. A full disk and a missing QEMU are not counted: they hit all jobs alike."""
    missing = isinstance(error, MachineUnavailableError)
    if missing or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        attempt.job.forgive_attempt()
    requeued = resources.spool.requeue(attempt.job)
    if missing:
        raise error
    return Requeued(requeued, str(error))


def _give_up(resources: Resources, attempt: Attempt, reason: str) -> Published:
    return publish(resources.spool, attempt, Outcome("lost", reason))


def _collect(
    resources: Resources, attempt: Attempt, allocation: Allocation, ended: Outcome, wait: Wait
) -> Published | Requeued:
    """Pack and publish; a full disk is waited out, since the janitor, or anybody, may make room."""
    job, pause_s, is_packed = attempt.job, 1.0, False
    while True:
        try:
            if not is_packed:
                _pack(attempt)
                is_packed = True  # as the machine left it: taking artifacts may mend the disk
            taken = artifacts.take(job.disk, allocation.wishes.outputs, job.path / ARTIFACTS, resources.artifact_limits)
            return publish(resources.spool, attempt, ended, taken)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            log.warning("job %s: no room for its result; trying again in %g s", job.id, pause_s)
        if wait(pause_s):
            job.forgive_attempt()
            return Requeued(resources.spool.requeue(job), "")
        pause_s = min(60.0, pause_s * 2)


def _pack(attempt: Attempt) -> None:
    target = attempt.job.path / attempt.record.image_name()
    target.unlink(missing_ok=True)
    codec.pack(attempt.record.codec, attempt.job.disk, target, CODEC_S)
