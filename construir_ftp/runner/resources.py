"""What jobs of a spool are run with."""

import msgspec

from construir_ftp.config import ArtifactsSection, MachineSection
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs.spool import Spool
from construir_ftp.layers.resolver import Offer
from construir_ftp.machine.accelerator import Choice
from construir_ftp.machine.capacity import Spare
from construir_ftp.machine.shape import Shape
from construir_ftp.machine.template import Templates
from construir_ftp.trust.seal import Seal


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
