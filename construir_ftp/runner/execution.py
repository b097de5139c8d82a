"""The machines of one job: the quickest that there is, and another one if that fails."""

import logging
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from construir_ftp.errors import BaseImageError, ConstruirError, MachineUnavailableError
from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.machine import outcome
from construir_ftp.machine.ending import Ending
from construir_ftp.machine.outcome import MachineFault
from construir_ftp.machine.shape import Shape
from construir_ftp.machine.vm import Machine
from construir_ftp.runner.allocation import Allocation
from construir_ftp.runner.attempt import Attempt
from construir_ftp.runner.resources import Resources

log = logging.getLogger("construir.runner")

# A guest that has booted already takes its order in milliseconds; one that hasn't by then never will.
_QUICK_BOOT_S = 15.0


def run(
    resources: Resources, attempt: Attempt, allocation: Allocation, stop: socket.socket, waiting: Machine | None
) -> Ending:
    """Run the job in the quickest machine there is; if that one fails, once more in a machine booted for it.

    As soon as `stop` is readable its machine is killed. Raises JobError where the job's disk can't be had,
    ConstruirError and OSError; MachineUnavailableError, whatever came of the machines, if the base image has changed
    meanwhile.
    """
    with _on_unchanged(allocation.shape.base):
        return _run(resources, attempt, allocation, stop, waiting)


@contextmanager
def _on_unchanged(base: BaseImage) -> Iterator[None]:
    """What runs within may have read anything of an image that changes, and a result would name one that it was not."""
    try:
        yield
    finally:
        try:
            baseimage.demand_unchanged(base)
        except BaseImageError as error:
            raise MachineUnavailableError(str(error)) from error


def _run(
    resources: Resources, attempt: Attempt, allocation: Allocation, stop: socket.socket, waiting: Machine | None
) -> Ending:
    ending, why = _run_in_quick_machine(resources, attempt, allocation, stop, waiting)
    if ending is None and not why:
        ending = _run_in_own_machine(resources, attempt, allocation, stop)
        why = _fault_of(ending)
    if ending is not None and not why:
        return ending
    log.info("job %s: once more, in a machine booted for it, since the one it had failed: %s", attempt.job.id, why)
    return _run_in_own_machine(resources, attempt, allocation, stop)


def _run_in_quick_machine(
    resources: Resources, attempt: Attempt, allocation: Allocation, stop: socket.socket, waiting: Machine | None
) -> tuple[Ending | None, str]:
    """How it ended in the machine that waits, or in a clone, and why that one failed; nothing where there is none.

    A template whose machine fails before it has touched the job is thrown away.
    """
    machine = _quick_machine(resources, allocation.shape, waiting)
    if machine is None:
        return None, ""
    _unpack(resources, attempt, allocation)
    ending = None
    try:
        with machine as quick:
            ending = _run_in(resources, attempt, allocation, quick, stop, _QUICK_BOOT_S)
        why = _fault_of(ending)
    except ConstruirError as error:
        why = str(error)
    if why and resources.templates is not None and not (ending and ending.took_order):
        resources.templates.discard(allocation.shape, why)
    return ending, why


def _run_in_own_machine(resources: Resources, attempt: Attempt, allocation: Allocation, stop: socket.socket) -> Ending:
    with Machine.start(allocation.shape) as booted:
        _unpack(resources, attempt, allocation)  # while it comes up
        return _run_in(resources, attempt, allocation, booted, stop, resources.machine.boot_timeout)


def _fault_of(ending: Ending) -> str:
    """Why a machine failed; empty if it didn't."""
    judged = outcome.judge(ending)
    return judged.reason if isinstance(judged, MachineFault) and ending.killed != "stopped" else ""


def _quick_machine(
    resources: Resources, shape: Shape, waiting: Machine | None
) -> AbstractContextManager[Machine] | None:
    """The one that waits, if it is what is needed, or else a clone; none where there is no template."""
    if waiting is not None and waiting.shape.key() == shape.key():
        return nullcontext(waiting)
    template = resources.templates.find(shape) if resources.templates is not None else None
    return template.clone() if template is not None else None


def _unpack(resources: Resources, attempt: Attempt, allocation: Allocation) -> None:
    job = attempt.job
    job.strip()
    allocation.unpack(job.upload, attempt.record, job)
    allocation.note(job, resources.machine)


def _run_in(
    resources: Resources,
    attempt: Attempt,
    allocation: Allocation,
    machine: Machine,
    stop: socket.socket,
    boot_timeout_s: float,
) -> Ending:
    job, record = attempt.job, attempt.record
    log.info("job %s: attempt %d, in a %s machine", job.id, job.attempts(), machine.ending.boot_path)
    boot_timeout_s = min(boot_timeout_s, resources.machine.boot_timeout)
    try:
        return machine.run(allocation.assignment(job, record, resources.machine, boot_timeout_s), stop)
    finally:
        allocation.forget(job)
