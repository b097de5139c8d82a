"""What jobs of a spool are run with."""

import logging

import msgspec

from construir_ftp import __version__, architecture
from construir_ftp.config import ArtifactsSection, Config, MachineSection
from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs.nodes import Machines, Offered
from construir_ftp.jobs.spool import Spool
from construir_ftp.layers.resolver import Offer
from construir_ftp.machine import accelerator, capacity
from construir_ftp.machine.accelerator import Choice
from construir_ftp.machine.capacity import Spare
from construir_ftp.machine.shape import Shape
from construir_ftp.machine.template import Templates
from construir_ftp.machine.waiting import Source
from construir_ftp.trust.seal import Seal

log = logging.getLogger("construir.runner")


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What jobs of a spool are run with, until something of it changes; several threads may use it at once.

    Without a seal results are not signed. Uploads up to `keep_upload_bytes` are kept in them.
    """

    spool: Spool
    base: BaseImage
    machine: MachineSection
    accelerator: Choice
    max_disk_bytes: int
    artifact_limits: ArtifactsSection
    offer: Offer
    spare: Spare
    templates: Templates | None = None
    seal: Seal | None = None
    keep_upload_bytes: int = 0

    def shape(self) -> Shape:
        """The machine that jobs get."""
        return Shape.of(self.machine, self.base, self.accelerator.accelerator, self.max_disk_bytes)

    def source(self) -> Source | None:
        """What those that wait are made of, if that is there by now."""
        return self.templates.source(self.shape()) if self.templates is not None else None


class Supply:
    """Where they come from, for one runner with so many slots."""

    def __init__(self, spool: Spool, config: Config, templates: Templates, slots: int, seal: Seal) -> None:
        self._spool, self._config, self._templates, self._seal = spool, config, templates, seal
        self._slots = slots
        self._spare = Spare(capacity.spare_bytes(config.machine, slots + config.layers.installs))
        self._choices: dict[str, Choice] = {}

    def get(self) -> Resources:
        """Those of this moment: the base image may have been built, replaced or damaged since the last one.

        Raises ConstruirError and OSError where no job can be run.
        """
        images = self._config.images_path()
        base = baseimage.prove(baseimage.find(images, self._config.images.default))
        choice = self._choose_accelerator(base)
        return Resources(
            spool=self._spool,
            base=base,
            machine=self._config.machine,
            offer=Offer.of(self._spool, self._config),
            spare=self._spare,
            accelerator=choice,
            max_disk_bytes=int(self._config.gate.max_image),
            artifact_limits=self._config.artifacts,
            seal=self._seal,
            keep_upload_bytes=int(self._config.results.keep_upload),
            templates=self._templates if self._config.machine.warm else None,
        )

    def offered(self) -> Offered:
        """What jobs can have here, as others are told. An accelerator that was not tried yet is not known."""
        terms = Offer.of(self._spool, self._config).terms()
        bases = [base for base in baseimage.every(self._config.images_path()) if base.name in terms.bases]
        return Offered(
            program=__version__,
            architecture=architecture.native(),
            processors=terms.cpus,
            memory_bytes=terms.memory_bytes,
            slots=self._slots,
            default_base=self._config.images.default,
            signs_as=self._seal.signs_as(),
            bases={base.name: self._machines_of(base) for base in bases},
            terms=terms,
        )

    def _machines_of(self, base: BaseImage) -> Machines:
        manifest = base.manifest
        is_native = manifest.architecture == architecture.native()
        usual = next(iter(self._choices.values()), None) if is_native else None
        known = self._choices.get(manifest.digest(), usual)
        return Machines(
            digest=manifest.digest(),
            architecture=manifest.architecture,
            accelerator=known.accelerator if known else "" if is_native else "tcg",
            least_memory_bytes=manifest.least_memory,
        )

    def _choose_accelerator(self, base: BaseImage) -> Choice:
        digest = base.manifest.digest()
        if digest not in self._choices:
            self._choices[digest] = accelerator.choose(self._config.machine, self._config.images_path(), base)
            log.info("machines run under %s", self._choices[digest].reason)
        return self._choices[digest]
