"""One job from running/ to done/: allocate what it needs, boot a machine with its disk, pack what it left, publish.

Whose fault is it when something fails on the way? What the job's disk and wishes cause is the job's: it ends, once.
What an empty job would meet too is the host's: the job goes back to queue/, has lost nothing, and the runner pauses.
What is neither for sure is tried once more, in a machine of its own; then an empty machine decides. Nothing here
decides which job is next.
"""

import errno
import logging
import os
import socket
from collections.abc import Callable

from construir_ftp import files
from construir_ftp.diskimage import codec, e2fsprogs
from construir_ftp.errors import ConstruirError, JobError, MachineUnavailableError, StoppedError
from construir_ftp.jobs import request
from construir_ftp.jobs.result import ARTIFACTS, INSTALL, Status
from construir_ftp.jobs.spool import MAX_ATTEMPTS, Job, Spool
from construir_ftp.layers.resolver import DependencyError
from construir_ftp.layers.waiting import stopped
from construir_ftp.machine import accelerator, outcome
from construir_ftp.machine.outcome import MachineFault, Outcome
from construir_ftp.machine.vm import Machine
from construir_ftp.runner import artifacts, execution
from construir_ftp.runner.allocation import Allocation
from construir_ftp.runner.attempt import Attempt, Published, Requeued
from construir_ftp.runner.publish import keep_upload, publish
from construir_ftp.runner.resources import Resources
from construir_ftp.trust.seal import Seal, SigningError

log = logging.getLogger("construir.runner")

# With less than this free on the spool's disk a machine's lost write is the host's doing.
_NO_ROOM_BYTES = 16 * 2**20

Wait = Callable[[float, Exception], bool]
Tell = Callable[[str, str], None]


def prepare(
    resources: Resources, job: Job, stop: socket.socket, tell: Tell = lambda _doing, _progress: None
) -> Attempt | Published | Requeued:
    """Settle what a job that was just taken gets, and have its layers made if they have to be: an attempt, to be `run`.

    As soon as `stop` is readable it is requeued, or published as cancelled if that is why. `tell` is called with
    what keeps the job from its machine and how far that is, in words for anyone, and with nothing once nothing does.
    Raises MachineUnavailableError where no machine can be started: the job is back in queue/, uncounted. After a
    SigningError it is still running; see give_back.
    """
    try:
        attempt = Attempt.of(job)
    except ConstruirError as error:
        return publish(resources.spool, resources.seal, Attempt.of_any(job), Outcome("lost", str(error)))
    if job.is_cancelled():
        return publish_cancelled(resources.spool, resources.seal, job)
    if job.attempts() >= MAX_ATTEMPTS:
        return _give_up(resources, attempt, f"given up after {job.attempts()} attempts; see the appliance's log")
    job.count_attempt()
    try:
        wanted = request.dated(request.read(attempt.record.construir_toml), attempt.record.newest_s)
        attempt.allocation = Allocation.settle(resources.offer, resources.shape(), wanted, stop, tell)
        tell("", "")
    except DependencyError as error:
        if stopped(stop):
            return _stop(resources, attempt)
        where = f"; all of it is in {INSTALL}" if _keep_log(job, error.log) else ""
        return publish(resources.spool, resources.seal, attempt, Outcome("dependency-failed", f"{error}{where}"))
    except (ConstruirError, OSError) as error:
        return _sort(resources, attempt, error, stop)
    return attempt


def _keep_log(job: Job, log_of_install: bytes) -> bool:
    """Put what was said while its packages were installed into the job's result; whether there is some, and room."""
    if log_of_install:
        try:
            (job.path / INSTALL).write_bytes(log_of_install)
        except OSError as error:
            log.warning("job %s: %s can't be kept: %s", job.id, INSTALL, error.strerror)
            return False
    return bool(log_of_install)


def run(
    resources: Resources, attempt: Attempt, stop: socket.socket, wait: Wait, waiting: Machine | None = None
) -> Published | Requeued:
    """Run a job that was prepared. As soon as `stop` is readable its machine is killed, and it is requeued, or
    published as cancelled if that is why.

    `wait(seconds, error)` is called between attempts to publish a result, while the disk is full or the key can't be
    used; true means stop waiting. `waiting` is a machine of the usual shape that has been kept for it. Raises
    MachineUnavailableError as `prepare` does.
    """
    allocation = attempt.allocation
    assert allocation is not None, "it was prepared"
    extra_bytes = allocation.extra_memory_bytes(resources.shape())
    with resources.spare.lend(extra_bytes, lambda: stopped(stop)) as has_memory:
        if not has_memory:
            return _stop(resources, attempt)
        return _run_allocated(resources, attempt, allocation, stop, wait, waiting)


def demand_empty_machine(resources: Resources, stop: socket.socket | None = None) -> None:
    """Raises MachineUnavailableError where an empty machine of the usual kind does not come up; StoppedError."""
    usual, machine = resources.shape(), resources.machine
    if problem := accelerator.probe(machine, usual.base, usual.accelerator, machine.boot_timeout, stop=stop):
        raise MachineUnavailableError(problem)


def publish_cancelled(spool: Spool, seal: Seal | None, job: Job) -> Published:
    """Publish a job that was taken and is not to be run. After an OSError or a SigningError it is still running."""
    ended = Outcome("cancelled", f"cancelled by {job.cancelled_by()} before it ran")
    return publish(spool, seal, Attempt.of_any(job), ended)


def give_back(spool: Spool, job: Job) -> None:
    """running -> queue: a job without a machine whose result can't be signed. What it has lost is an attempt only if
    that was its last one: it is not to be run again.
    """
    if 0 < job.attempts() < MAX_ATTEMPTS:
        job.forgive_attempt()
    spool.requeue(job)


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
        ending = attempt.ending = execution.run(resources, attempt, allocation, stop, waiting)
        judged = outcome.judge(ending)
        if ending.killed == "stopped":
            if not attempt.job.is_cancelled():
                return _stop(resources, attempt)
            whose = attempt.job.cancelled_by()
            judged = Outcome("cancelled", f"cancelled by {whose} while it ran; the machine was killed")
        elif isinstance(judged, MachineFault):
            judged = _blame(resources, attempt, allocation, judged, stop)
    except (ConstruirError, OSError) as error:
        return _sort(resources, attempt, error, stop)
    return _collect(resources, attempt, allocation, judged, wait)


def _blame(
    resources: Resources, attempt: Attempt, allocation: Allocation, fault: MachineFault, stop: socket.socket
) -> Outcome:
    """Whose fault it is that a job's machines failed, twice: an empty one of the usual kind decides.

    Raises MachineUnavailableError, or OSError with errno ENOSPC, where it is the host's; StoppedError.
    """
    if files.free_bytes(attempt.job.disk.parent) < _NO_ROOM_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    demand_empty_machine(resources, stop)
    shape, ending = allocation.shape, attempt.ending
    if ending is None or ending.took_order:
        return Outcome("no-result", f"its machine failed, twice, and an empty one did not: {fault.reason}")
    what = f"{shape.memory_bytes >> 20} MiB of memory and {shape.cpus} processors, of {shape.base.name},"
    return Outcome("failed", f"run.sh was not run: a machine with {what} does not come up, a usual one does")


# -- what becomes of the job -----------------------------------------------------------------------------------


def _stop(resources: Resources, attempt: Attempt) -> Requeued | Published:
    """It is not wanted any more, or not by us: in that case it has lost nothing."""
    if attempt.job.is_cancelled():
        return publish_cancelled(resources.spool, resources.seal, attempt.job)
    attempt.job.forgive_attempt()
    return Requeued(resources.spool.requeue(attempt.job), "")


def _sort(resources: Resources, attempt: Attempt, error: Exception, stop: socket.socket) -> Requeued | Published:
    """What becomes of a job that met an error on its way to a machine, by whose fault that is; see docs/results.

    Raises the error again where no job can be run at the moment: the job is back in queue/, and has lost nothing.
    """
    job = attempt.job
    if isinstance(error, StoppedError):
        return _stop(resources, attempt)
    if isinstance(error, JobError):
        return publish(resources.spool, resources.seal, attempt, Outcome("failed", f"run.sh was not run: {error}"))
    if isinstance(error, MachineUnavailableError):
        job.forgive_attempt()
        resources.spool.requeue(job)
        raise error
    if isinstance(error, ConstruirError):
        if job.attempts() == 1:
            return Requeued(resources.spool.requeue(job), str(error), hits_all=False)
        try:
            demand_empty_machine(resources, stop)
        except (MachineUnavailableError, StoppedError) as problem:
            return _sort(resources, attempt, problem, stop)
        return publish(
            resources.spool, resources.seal, attempt, Outcome("failed", f"it could not be run, twice: {error}")
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        if _lacks_room_alone(resources, attempt):
            job.strip()
            words = "the disk has no room for it and the results that it depends on, although nothing else runs"
            return publish(resources.spool, resources.seal, attempt, Outcome("dependency-failed", words))
        job.forgive_attempt()
    elif job.attempts() >= MAX_ATTEMPTS:
        return _give_up(resources, attempt, str(error))
    return Requeued(resources.spool.requeue(job), str(error))


def _lacks_room_alone(resources: Resources, attempt: Attempt) -> bool:
    """Whether a job has filled the disk with earlier results: it will do so again, as nobody else is to make room."""
    results = attempt.allocation.results if attempt.allocation else ()
    return bool(results) and set(resources.spool.names("running")) == {attempt.job.id}


def _give_up(resources: Resources, attempt: Attempt, reason: str) -> Published:
    return publish(resources.spool, resources.seal, attempt, Outcome("lost", reason))


def _collect(
    resources: Resources, attempt: Attempt, allocation: Allocation, ended: Outcome, wait: Wait
) -> Published | Requeued:
    """Pack and publish. A full disk is waited out, since the janitor, or anybody, may make room; so is a key that can't
    be used, since the operator may put it back.
    """
    job, pause_s, is_packed = attempt.job, 1.0, False
    ended = _verify(attempt, ended)
    while True:
        try:
            if not is_packed:
                ended = _pack(attempt, ended)
                is_packed = True
            taken = artifacts.take(job.disk, allocation.wishes.outputs, job.path / ARTIFACTS, resources.artifact_limits)
            keep_upload(attempt, resources.keep_upload_bytes)
            return publish(resources.spool, resources.seal, attempt, ended, taken)
        except (OSError, SigningError) as error:
            if isinstance(error, OSError) and error.errno != errno.ENOSPC:
                raise
            why = error if isinstance(error, SigningError) else "no room for its result"
            log.warning("job %s: %s; trying again in %g s", job.id, why, pause_s)
            is_over = wait(pause_s, error)
        if is_over:
            job.forgive_attempt()
            return Requeued(resources.spool.requeue(job), "")
        pause_s = min(60.0, pause_s * 2)


def _verify(attempt: Attempt, ended: Outcome) -> Outcome:
    """Look at the job's disk for ourselves: what the guest says is a claim. What was not unmounted is mended, so that
    its image can be mounted, or sent again.
    """
    job = attempt.job
    if not attempt.record.filesystem.startswith("ext"):
        return ended
    try:
        was_in_use = e2fsprogs.repair(job.disk)
    except ConstruirError as error:
        log.warning("job %s: %s", job.id, error)
        was_in_use = True
    if was_in_use and ended.status == "success":
        words = "run.sh ended with exit status 0, but its file system was in use until the machine ended"
        return Outcome("no-result", words, ended.exit_code)
    return ended


def _pack(attempt: Attempt, ended: Outcome) -> Outcome:
    """Pack the job's disk; what that makes of the outcome, where the tool fails or is not done in time."""
    disk = attempt.job.disk
    target = attempt.job.path / attempt.record.image_name()
    target.unlink(missing_ok=True)
    try:
        codec.pack(attempt.record.codec, disk, target, codec.patience_s(disk.stat().st_size))
    except ConstruirError as error:
        status: Status = "no-result" if ended.status == "success" else ended.status
        return Outcome(status, f"{ended.reason}; its image could not be packed: {error}", ended.exit_code)
    return ended
