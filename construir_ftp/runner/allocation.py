"""What one job needs of its machine, settled before it gets one: which machine, which layers, which results."""

import socket
from collections.abc import Callable
from pathlib import Path

import msgspec

from construir_ftp.config import MachineSection
from construir_ftp.diskimage import codec, e2fsprogs
from construir_ftp.errors import ConstruirError, JobError
from construir_ftp.image import baseimage
from construir_ftp.intake.verdict import Verdict
from construir_ftp.jobs import nodes, request
from construir_ftp.jobs.job import disk_of_result
from construir_ftp.jobs.request import Wishes
from construir_ftp.jobs.result import CONSOLE, OUTPUT, WISHES, LayerUsed, Used
from construir_ftp.jobs.spool import Job, Record
from construir_ftp.layers.resolver import Dependency, DependencyError, Offer
from construir_ftp.layers.store import Layer
from construir_ftp.machine import disks, uml
from construir_ftp.machine.ending import Assignment
from construir_ftp.machine.guest import Errand
from construir_ftp.machine.shape import Shape
from construir_ftp.units import Size


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `wishes` are the job's own words, where it says nothing the machine's section holds."""

    wishes: Wishes
    shape: Shape
    layers: tuple[Layer, ...] = ()
    results: tuple[Dependency, ...] = ()

    @classmethod
    def settle(
        cls,
        offer: Offer,
        usual: Shape,
        wanted: Wishes,
        stop: socket.socket,
        tell: Callable[[str, str], None] = lambda _doing, _progress: None,
    ) -> "Allocation":
        """What a job needs that asks for this, its layers made if they have to be; `tell` is told of it.

        Raises DependencyError, and ConstruirError for what is wrong here; either when `stop` became readable.
        """
        base = usual.base
        if wanted.base or wanted.architecture:
            base = baseimage.prove(offer.base(wanted))
        shape = offer.shape(wanted, base, usual)
        if why := nodes.why_another_kind(base.name, base.manifest.architecture, shape.accelerator, wanted):
            raise DependencyError(why)
        results, layers = offer.results_of(wanted), offer.layers_of(wanted, shape, stop, tell)
        # At the door nobody knows what else the layers lie on.
        places = uml.MOST_READ_ONLY if shape.accelerator == "uml" else disks.MOST_READ_ONLY
        if len(results) + len(layers) > places:
            raise DependencyError(
                f"it depends on {len(results)} results and, with those they lie on, {len(layers)} layers;"
                f" a machine has places for {places}"
            )
        return cls(wishes=wanted, shape=shape, results=tuple(results), layers=tuple(layers))

    def extra_memory_bytes(self, usual: Shape) -> int:
        """What the machine has beyond the usual one."""
        return max(0, self.shape.memory_bytes - usual.memory_bytes)

    def used(self) -> Used:
        """For the result: what the job depended on."""
        layers = [LayerUsed(layer.name, layer.manifest.sha256, layer.manifest.contents) for layer in self.layers]
        digests = {dependency.id: dependency.sha256 for dependency in self.results if dependency.sha256}
        return Used(layers, [dependency.id for dependency in self.results], digests)

    def unpack(self, upload: Path, found: Record | Verdict, job: Job) -> None:
        """Put the job's disk, out of `upload`, and those it depends on into its directory.

        Raises JobError where its file system can't be made as large as it asks for; ConstruirError and OSError.
        """
        patience_s = codec.patience_s(found.image_bytes)
        codec.unpack(found.codec, upload, job.disk, found.image_bytes, patience_s, padding_bytes=found.padding_bytes)
        if self.wishes.space:
            self._grow(job.disk, self.wishes.space)
        for dependency, path in zip(self.results, self.disks(job), strict=True):
            patience_s = codec.patience_s(dependency.image_bytes)
            codec.unpack(dependency.codec, dependency.image, path, dependency.image_bytes, patience_s)

    def _grow(self, disk: Path, space: Size) -> None:
        try:
            e2fsprogs.grow(disk, space, self.shape.max_disk_bytes)
        except ConstruirError as error:
            raise JobError(f"space = {int(space) >> 20} MiB: {error}; make the image larger instead") from error

    def note(self, job: Job, usual: MachineSection) -> None:
        """Write into the result the construir.toml that the job is run by, with what it left to us, and layers by their
        versions: with what else result.json tells, the same machine can be had again.
        """
        published = tuple(layer.name for layer in self.layers if layer.manifest.kind == "published")
        resolved = msgspec.structs.replace(
            self.wishes,
            base=self.shape.base.name,
            timeout=self.wishes.timeout or usual.timeout,
            # No more than may be asked for, so that it can be sent again as it is.
            idle_timeout=self.wishes.idle_timeout or min(usual.idle_timeout, usual.timeout),
            cpus=self.shape.cpus,
            memory=Size(self.shape.memory_bytes),
            dependencies=msgspec.structs.replace(self.wishes.dependencies, layers=published),
        )
        (job.path / WISHES).write_text(request.render(resolved))

    def forget(self, job: Job) -> None:
        """Remove the disks of what it depends on: they are no part of its result."""
        for path in self.disks(job):
            path.unlink(missing_ok=True)

    def disks(self, job: Job) -> tuple[Path, ...]:
        """Where `unpack` puts the disks of the results it depends on."""
        return tuple(disk_of_result(job, number) for number in range(len(self.results)))

    def errand(self, name: str, filesystem: str) -> Errand:
        """What its guest is told, of a job called `name`."""
        return Errand(
            hostname=name,
            filesystem=filesystem,
            run=self.wishes.run,
            env=self.wishes.env,
            layers=len(self.layers),
            results=tuple((dependency.name, dependency.filesystem) for dependency in self.results),
        )

    def assignment(self, job: Job, record: Record, machine: MachineSection, boot_timeout_s: float) -> Assignment:
        """What its machine is to do."""
        return Assignment(
            disk=job.disk,
            errand=self.errand(record.name, record.filesystem),
            layers=tuple(layer.image for layer in self.layers),
            results=self.disks(job),
            timeout_s=self.wishes.timeout or machine.timeout,
            idle_timeout_s=self.wishes.idle_timeout or machine.idle_timeout,
            boot_timeout_s=boot_timeout_s,
            mount_timeout_s=machine.mount_timeout,
            output=job.path / OUTPUT,
            console=job.path / CONSOLE,
            log_head_bytes=machine.log_head,
            log_tail_bytes=machine.log_tail,
        )
