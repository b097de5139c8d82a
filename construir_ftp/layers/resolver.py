"""What this appliance has for a job: base images, machines, Debian packages, layers, earlier results.

Asked twice: at the door whether a job can have what its construir.toml asks for, and before it runs for the things
themselves. What has gone in between, or can't be made, is a DependencyError, told to whoever sent the job.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import msgspec

from construir_ftp.config import Config, LayersSection, MachineSection
from construir_ftp.errors import CommandError, ConstruirError, DamagedError, RefusedError, StoppedError
from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs import nodes, places, request, sums
from construir_ftp.jobs.job import read_result
from construir_ftp.jobs.request import Dependencies, Terms, Wishes
from construir_ftp.jobs.result import SUMS
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.layers.apt import Archive, Plan, plainly
from construir_ftp.layers.apt_directory import Pace
from construir_ftp.layers.build import InstallationError, Workshop
from construir_ftp.layers.store import ARCHIVES, Layer, Store
from construir_ftp.machine import accelerator as kinds
from construir_ftp.machine import capacity, uml
from construir_ftp.machine.disks import MOST_READ_ONLY
from construir_ftp.machine.shape import Shape, most_cpus, program_of

log = logging.getLogger(__name__)

# Within it a thread waits for somebody else, and does nothing.
Aside = Callable[[], AbstractContextManager[None]]

INSTALLING = "its Debian packages are being installed"
_QUOTED_CHARACTERS = 100


class DependencyError(ConstruirError):
    """What a job depends on can't be had; the message says what and why, `log` all that was said where it failed."""

    def __init__(self, message: str, log: bytes = b"") -> None:
        super().__init__(message)
        self.log = log


class Dependency(msgspec.Struct, frozen=True, kw_only=True):
    """An earlier result to be mounted: under which name, its image as it lies in done/, and what that is; its digest,
    if SHA256SUMS has it.
    """

    id: str
    name: str
    image: Path
    codec: str
    filesystem: str
    image_bytes: int
    sha256: str = ""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, for one spool. `spare_memory_bytes`: what one machine can have beyond its usual memory.

    As soon as `stop` is readable nobody waits at the door any longer. Jobs that name no base image have `pinned`, if
    there is one, and else the live version of `default_base`.
    """

    spool: Spool
    images: Path
    default_base: str
    machine: MachineSection
    layers: LayersSection
    max_image_bytes: int
    max_artifacts_bytes: int
    spare_memory_bytes: int
    stop: socket.socket | None = None
    pinned: BaseImage | None = None

    @classmethod
    def of(cls, spool: Spool, config: Config, stop: socket.socket | None = None) -> "Offer":
        """What a configuration offers."""
        machines = (config.runner.slots or capacity.slots(config.machine)) + config.layers.installs
        return cls(
            spool=spool,
            images=config.images_path(),
            default_base=config.images.default,
            machine=config.machine,
            layers=config.layers,
            max_image_bytes=int(config.gate.max_image),
            max_artifacts_bytes=int(config.artifacts.max_total),
            spare_memory_bytes=capacity.spare_bytes(config.machine, machines),
            stop=stop,
        )

    # -- at the door -----------------------------------------------------------------------------------------

    def check(self, wanted: Wishes, image_bytes: int, aside: Aside = nullcontext) -> None:
        """Raises RefusedError, naming the keys, if a job with an image of that size can't have what it asks for.

        It waits for a package archive within `aside` only.
        """
        if wanted == Wishes():
            return  # most ask for nothing, and what there is need not be read for them
        reasons = [*self._lacking_machine(wanted, image_bytes), *self._lacking_dependencies(wanted.dependencies)]
        if wanted.dependencies.installs():
            try:
                self._check_packages(wanted, aside)
            except RefusedError as error:
                if error.is_lasting():
                    reasons.append(str(error))
                elif not reasons:
                    raise
        if reasons:
            raise request.refusal(reasons)

    def terms(self) -> Terms:
        """The bounds of what a job may ask for."""
        machine = self.machine
        most_memory = max(machine.memory, min(machine.max_memory, machine.memory + self.spare_memory_bytes))
        return Terms(
            timeout_s=float(machine.timeout),
            idle_timeout_s=float(machine.timeout),
            cpus=most_cpus(machine.accelerator, max(machine.cpus, min(machine.max_cpus, len(os.sched_getaffinity(0))))),
            memory_bytes=int(most_memory),
            image_bytes=self.max_image_bytes,
            bases=tuple(base.name for base in baseimage.every(self.images) if not kinds.why_none(base, machine)),
        )

    def _lacking_machine(self, wanted: Wishes, image_bytes: int) -> list[str]:
        """What no node has, in the words of this computer's own."""
        terms = self.terms()
        reasons = terms.lacking(wanted, image_bytes)
        if not wanted.base or wanted.base in terms.bases:
            reasons += self._another_kind(wanted, terms.bases)
        return reasons if reasons and not nodes.suits_any_other(self.spool.path, wanted, image_bytes) else []

    def _another_kind(self, wanted: Wishes, bases: tuple[str, ...]) -> list[str]:
        """Why there is another kind of machine than is wanted, and why it is less memory than it needs to come up."""
        if wanted.memory is None and not wanted.architecture and not wanted.accelerator:
            return []
        name = wanted.base_name(self.default_base)
        if wanted.architecture and name not in bases:
            return [f"architecture: there is no base image {name} here; there are: {', '.join(bases) or 'none'}"]
        manifest = self._meant(wanted).manifest
        known = nodes.offered(self.spool.path, places.LOCAL)
        accelerator = known.bases[name].accelerator if known and name in known.bases else ""
        reasons = (
            nodes.why_another_kind(name, manifest.architecture, accelerator, wanted),
            nodes.why_too_little(name, manifest.least_memory, wanted),
        )
        return [why for why in reasons if why]

    def _lacking_dependencies(self, needs: Dependencies) -> Iterator[str]:
        """Why its dependencies can't be had, but for what it wants installed."""
        if self.machine.accelerator == "uml" and needs.disks() > uml.MOST_READ_ONLY:
            yield f"dependencies: at most {uml.MOST_READ_ONLY} can be had here"
        for job_id in needs.results:
            if not any(self.spool.find_job(state, job_id) for state in ("queue", "running", "done")):
                yield f"dependencies.results: there is no job {job_id}, or not any more"
        for name in needs.layers:
            if self.store().find(name) is None:
                yield f"dependencies.layers: there is no layer {name}; see /layers"

    def _check_packages(self, wanted: Wishes, aside: Aside) -> None:
        if self.pinned is None and wanted.base_name(self.default_base) not in baseimage.names(self.images):
            return  # a node has it, and finds out
        try:
            plan = self._plan_of(wanted, self.archive(self._meant(wanted), self.stop), aside)
        except RefusedError as error:
            raise RefusedError(f"{request.FILE}: {error}", error.reply) from error
        except StoppedError as error:
            raise RefusedError("this server is being stopped; try again later", 452) from error
        except CommandError as error:
            why = "the package archive's lists can't be fetched at the moment; try again in a minute"
            raise RefusedError(why, 452) from error
        if plan.installed_bytes > self.layers.max_installed:
            largest = max(plan.packages, key=lambda package: package.installed_bytes)
            raise RefusedError(
                f"{request.FILE}: dependencies.packages: {_in_short(wanted.dependencies.installs())} with all they need"
                f" take {plan.installed_bytes >> 20} MiB, {largest.name} alone {largest.installed_bytes >> 20} MiB;"
                f" at most {self.layers.max_installed >> 20} MiB can be had here"
            )

    # -- before a run ------------------------------------------------------------------------------------------

    def base(self, wanted: Wishes) -> BaseImage:
        """The base image a job wants. Raises ConstruirError."""
        base = self._meant(wanted)
        if problem := kinds.why_none(base, self.machine):
            raise DependencyError(f"base image '{base.name}' can't be run here: {problem}")
        return base

    def _meant(self, wanted: Wishes) -> BaseImage:
        if self.pinned is not None and not wanted.base:
            return self.pinned
        return baseimage.find(self.images, wanted.base_name(self.default_base))

    def store(self) -> Store:
        """Where the layers are."""
        return Store(self.spool.state("layers"))

    def archive(self, base: BaseImage, stop: socket.socket | None = None) -> Archive:
        """The Debian archive of a base image; whoever waits for it does so until `stop` is readable."""
        pace = Pace(int(self.layers.min_fetch_rate), self.layers.fetch_rate_window)
        return Archive(self.spool.state("layers") / ARCHIVES, base, pace=pace, stop=stop)

    def plan(
        self,
        archive: Archive,
        packages: tuple[str, ...],
        build_depends: tuple[str, ...] = (),
        aside: Aside | None = None,
    ) -> Plan:
        """What packages and build dependencies come to.

        At the door that is by lists that may be old, rather than to keep anyone waiting.

        `aside` says that it is asked at the door, and is for waits there. Raises RefusedError, and CommandError where
        the archive can't be reached.
        """
        if not self.layers.packages:
            raise RefusedError("dependencies.packages: none can be had here; put them into the image")
        archive.refresh(at_the_door=aside is not None, aside=aside or nullcontext)
        return archive.resolve(packages, build_depends)

    def _plan_of(self, wanted: Wishes, archive: Archive, aside: Aside | None = None) -> Plan:
        needs = wanted.dependencies
        return self.plan(archive, needs.packages, needs.build_depends, aside)

    def shape(self, wanted: Wishes, base: BaseImage, usual: Shape) -> Shape:
        """The machine a job wants, its other sizes and, if it can be, its accelerator being the usual ones."""
        is_usual = base.manifest.architecture == usual.base.manifest.architecture
        return msgspec.structs.replace(
            usual,
            program=program_of(self.machine, base),
            base=base,
            accelerator=usual.accelerator if is_usual else kinds.choose(self.machine, self.images, base).accelerator,
            memory_bytes=int(wanted.memory or usual.memory_bytes),
            cpus=wanted.cpus or usual.cpus,
            # Few kinds of machine, so that there are few templates.
            read_only_disks=MOST_READ_ONLY if wanted.dependencies.disks() else 0,
        )

    def layers_of(
        self,
        wanted: Wishes,
        shape: Shape,
        stop: socket.socket | None = None,
        tell: Callable[[str, str], None] = lambda _doing, _progress: None,
    ) -> list[Layer]:
        """The layers a job wants, the lowest first: its packages, made now if they have to be, then the published ones.

        While they are made `tell` has been told so, and how far it is, in words for anyone. Raises DependencyError.
        """
        needs, store = wanted.dependencies, self.store()
        try:
            chain: list[Layer] = []
            archive = self.archive(shape.base, stop)
            if needs.installs() and (plan := self._plan_of(wanted, archive)).packages:
                workshop = Workshop(store, archive, shape, self.layers.timeout, stop, partial(tell, INSTALLING))
                made = workshop.ensure(plan)
                chain += store.chain(made)
            for name in needs.layers:
                found = store.find(name)
                if found is None:
                    raise DependencyError(f"there is no layer {name} any more")
                store.use(found)
                chain += [layer for layer in store.chain(found) if layer.name not in {known.name for known in chain}]
        except (RefusedError, StoppedError) as error:
            raise DependencyError(str(error)) from error
        except InstallationError as error:
            raise DependencyError(str(error), error.log) from error
        except CommandError as error:
            names = _in_short(needs.installs())
            log.warning("no layer can be made of the packages %s: %s", names, error)
            raise DependencyError(f"no layer can be made of the packages {names}: {plainly(error)}") from error
        return chain

    def results_of(self, wanted: Wishes) -> list[Dependency]:
        """The earlier results a job wants; each has succeeded. Raises DependencyError."""
        found: list[Dependency] = []
        for job_id in wanted.dependencies.results:
            job = Job(self.spool.state("done") / job_id)
            try:
                result = read_result(job)
            except ConstruirError as error:
                raise DependencyError(f"job {job_id} has no result, or not any more") from error
            if result.status != "success" or result.image is None:
                raise DependencyError(f"job {job_id}, whose result is needed, ended as {result.status}")
            taken = result.name in {other.name for other in found}
            found.append(
                Dependency(
                    id=job_id,
                    name=job_id if taken else result.name,
                    image=job.path / result.image,
                    codec=result.codec,
                    filesystem=result.filesystem,
                    image_bytes=result.image_bytes,
                    sha256=_digests(job).get(result.image, ""),
                )
            )
        return found


def _digests(job: Job) -> dict[str, str]:
    try:
        return sums.parse((job.path / SUMS).read_bytes())
    except (OSError, DamagedError):
        return {}


def _in_short(packages: tuple[str, ...]) -> str:
    names = ", ".join(packages)
    return names if len(names) <= _QUOTED_CHARACTERS else names[:_QUOTED_CHARACTERS] + "..."
