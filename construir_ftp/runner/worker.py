"""One job from running/ to done/: unpack its disk, boot a machine with it, pack what it left, publish.

A fault of ours sends the job back to queue/, a third one ends it as `lost`. What the job does to its machine is
a result like any other. Nothing here decides which job is next.
"""

import errno
import logging
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import msgspec

from construir_ftp.config import ArtifactsSection, MachineSection
from construir_ftp.diskimage import codec
from construir_ftp.errors import ConstruirError, MachineUnavailableError
from construir_ftp.image import baseimage
from construir_ftp.jobs import request
from construir_ftp.jobs.result import ARTIFACTS, Result, encode, image_name, moment
from construir_ftp.jobs.spool import MAX_ATTEMPTS, Job, Record, Spool
from construir_ftp.layers.resolver import DependencyError, Offer
from construir_ftp.machine import outcome
from construir_ftp.machine.accelerator import Choice
from construir_ftp.machine.capacity import Spare
from construir_ftp.machine.outcome import OurFault, Outcome
from construir_ftp.machine.qemu import Shape
from construir_ftp.machine.template import Templates
from construir_ftp.machine.vm import Ending, Machine
from construir_ftp.runner import artifacts, publish
from construir_ftp.runner.allocation import CODEC_S, Needs
from construir_ftp.runner.artifacts import Artifacts

log = logging.getLogger("construir.runner")

# A guest that has booted already is at run.sh in milliseconds; one that isn't there by then never will be.
_QUICK_BOOT_S = 15.0
_NO_ARTIFACTS = Artifacts()


class Published(msgspec.Struct, frozen=True):
    """The job is in done/."""

    job: Job
    result: Result


class Requeued(msgspec.Struct, frozen=True):
    """The job is back in queue/. `fault` says what we did wrong; empty if it was only told to stop."""

    job: Job
    fault: str


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes to run jobs of a spool one after the other; several threads may use it at once."""

    spool: Spool
    base: baseimage.BaseImage
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
        self,
        job: Job,
        stop: socket.socket,
        wait: Callable[[float], bool],
        waiting: Machine | None = None,
        tell: Callable[[str], None] = lambda _doing: None,
    ) -> Published | Requeued:
        """Run a job that was just taken. As soon as `stop` is readable its machine is killed, and it is requeued, or
        published as cancelled if that is why.

        `wait(seconds)` is called between attempts to write a result to a full disk; true means stop waiting. `waiting`
        is a machine of our shape that has been kept for it. `tell(doing)` is called with what keeps the job from its
        machine, in words for anyone, and with nothing once nothing does. Raises MachineUnavailableError where no
        machine can be started: the job is back in queue/, uncounted.
        """
        try:
            record = job.record()
        except ConstruirError as error:
            return self._give_up(job, _unknown(job), str(error))
        if job.is_cancelled():
            return publish_cancelled(self.spool, job)
        if job.attempts() >= MAX_ATTEMPTS:
            return self._give_up(job, record, f"given up after {job.attempts()} attempts; see the appliance's log")
        job.count_attempt()
        try:
            needs = Needs.settle(self.offer, self.shape(), request.read(record.construir_toml), stop, tell)
            tell("")
        except DependencyError as error:
            if stopped(stop):
                return self._stopped(job)
            return _publish(self.spool, job, record, Outcome("dependency-failed", str(error)))
        except (ConstruirError, OSError) as error:
            return self._excuse(job, error)
        with self.spare.lend(needs.extra_memory_bytes(self.shape()), lambda: stopped(stop)) as has_memory:
            if not has_memory:
                return self._stopped(job)
            return self._run(job, record, needs, stop, wait, waiting)

    def _stopped(self, job: Job) -> Requeued | Published:
        """It was to begin, and is not wanted any more, or not by us."""
        if job.is_cancelled():
            return publish_cancelled(self.spool, job)
        job.forgive_attempt()
        return Requeued(self.spool.requeue(job), "")

    def _run(
        self,
        job: Job,
        record: Record,
        needs: Needs,
        stop: socket.socket,
        wait: Callable[[float], bool],
        waiting: Machine | None,
    ) -> Published | Requeued:
        try:
            ending = self._boot(job, record, needs, stop, waiting)
        except (ConstruirError, OSError) as error:
            return self._excuse(job, error)
        run = needs, ending
        verdict = outcome.judge(ending)
        if ending.killed == "stopped":
            if not job.is_cancelled():
                job.forgive_attempt()
                return Requeued(self.spool.requeue(job), "")
            verdict = Outcome("cancelled", "cancelled by its contributor while it ran; the machine was killed")
        if isinstance(verdict, OurFault):
            if job.attempts() >= MAX_ATTEMPTS:
                return self._give_up(job, record, verdict.reason, run)
            return Requeued(self.spool.requeue(job), verdict.reason)
        return self._collect(job, record, verdict, run, wait)

    def _boot(self, job: Job, record: Record, needs: Needs, stop: socket.socket, waiting: Machine | None) -> Ending:
        """Run the job in the quickest machine there is; if that one fails us, in a machine booted for it."""
        for machine in self._quick_machines(needs.shape, waiting):
            try:
                with machine as quick:
                    ending = self._give(job, record, needs, quick, stop, min(_QUICK_BOOT_S, self.machine.boot_timeout))
                fault = outcome.judge(ending)
                if ending.killed == "stopped" or not isinstance(fault, OurFault):
                    return ending
                why = fault.reason
            except ConstruirError as error:
                why = str(error)
            log.warning("job %s: booting a machine for it, since a quick one failed: %s", job.id, why)
            if self.templates is not None:
                self.templates.discard(needs.shape, why)
        with Machine.start(needs.shape) as booted:
            return self._give(job, record, needs, booted, stop, self.machine.boot_timeout)

    def _quick_machines(self, shape: Shape, waiting: Machine | None) -> Iterator[AbstractContextManager[Machine]]:
        """The one that waits, if it is what is needed, or else a clone; none where there is no template."""
        if waiting is not None and waiting.shape.key() == shape.key():
            yield nullcontext(waiting)
            return
        template = self.templates.find(shape) if self.templates is not None else None
        if template is not None:
            yield template.clone()

    def _give(
        self, job: Job, record: Record, needs: Needs, machine: Machine, stop: socket.socket, boot_timeout_s: float
    ) -> Ending:
        """Unpack the job, while the machine comes up, and have it run."""
        job.strip()
        needs.unpack(job.upload, record, job)
        needs.note(job, self.machine)
        log.info("job %s: attempt %d, in a %s machine", job.id, job.attempts(), machine.ending.boot_path)
        try:
            return machine.run(needs.assignment(job, record, self.machine, boot_timeout_s), stop)
        finally:
            needs.forget(job)

    def _excuse(self, job: Job, error: Exception) -> Requeued:
        """The job never got a machine. A full disk and a missing QEMU are not counted: they hit all jobs alike."""
        missing = isinstance(error, MachineUnavailableError)
        if missing or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
            job.forgive_attempt()
        requeued = self.spool.requeue(job)
        if missing:
            raise error
        return Requeued(requeued, str(error))

    def _collect(
        self,
        job: Job,
        record: Record,
        verdict: Outcome,
        run: tuple[Needs, Ending],
        wait: Callable[[float], bool],
    ) -> Published | Requeued:
        """Pack and publish; a full disk is waited out, since the janitor, or anybody, may make room."""
        pause_s = 1.0
        is_packed = False
        while True:
            try:
                if not is_packed:
                    self._pack(job, record)
                    is_packed = True  # as the machine left it: taking artifacts may mend the disk
                patterns, place = run[0].wishes.outputs, job.path / ARTIFACTS
                taken = artifacts.take(job.disk, patterns, place, self.artifact_limits)
                return _publish(self.spool, job, record, verdict, run, taken)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                log.warning("job %s: no room for its result; trying again in %g s", job.id, pause_s)
            if wait(pause_s):
                job.forgive_attempt()
                return Requeued(self.spool.requeue(job), "")
            pause_s = min(60.0, pause_s * 2)

    def _pack(self, job: Job, record: Record) -> None:
        target = job.path / image_name(record)
        target.unlink(missing_ok=True)
        codec.pack(record.codec, job.disk, target, CODEC_S)

    def _give_up(self, job: Job, record: Record, reason: str, run: tuple[Needs, Ending] | None = None) -> Published:
        return _publish(self.spool, job, record, Outcome("lost", reason), run)


def stopped(stop: socket.socket) -> bool:
    """Whether the machine is to be killed, or not to be started."""
    return bool(select.select([stop], [], [], 0)[0])


def publish_cancelled(spool: Spool, job: Job) -> Published:
    """Publish a job that was taken and is not to be run. After an OSError it is still running, as after any other."""
    try:
        record = job.record()
    except ConstruirError:
        record = _unknown(job)
    return _publish(spool, job, record, Outcome("cancelled", "cancelled by its contributor before it ran"))


def _publish(
    spool: Spool,
    job: Job,
    record: Record,
    verdict: Outcome,
    run: tuple[Needs, Ending] | None = None,
    taken: Artifacts = _NO_ARTIFACTS,
) -> Published:
    described = (run[0].shape, run[0].used(), run[1]) if run else None
    result = publish.describe(job, record, verdict, described, taken)
    encoded = encode(result)
    publish.write_sums(job, record, taken, encoded)
    return Published(spool.finish(job, encoded), result)


def _unknown(job: Job) -> Record:
    """What is said of a job whose record can't be read any more."""
    arrived = Path(job.path).stat().st_mtime
    return Record(
        name="job",
        contributor="",
        codec="raw",
        filesystem="",
        upload_bytes=job.upload.stat().st_size if job.upload.exists() else 0,
        image_bytes=0,
        upload_sha256="",
        received=moment(arrived),
    )
