"""How little memory a machine of a base image comes up with: measured once, when the image is made.

A job that asks for less is refused at the door, so that no machine is started that can't come up.
"""

import logging
import time
from pathlib import Path

from construir_ftp.config import MachineSection
from construir_ftp.errors import ConstruirError
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.machine import accelerator

log = logging.getLogger(__name__)

_STEP_BYTES = 32 * 2**20
_MOST_STEPS = 16
# What does not come up in several times what the largest needed has not enough.
_PATIENCE, _LEAST_PATIENCE_S = 4, 5.0


def measure(machine: MachineSection, images: Path, base: BaseImage) -> int:
    """The least memory in bytes, a multiple of 32 MiB, up to 512 MiB; 0 where no machine comes up here to tell by."""
    try:
        chosen = accelerator.choose(machine, images, base).accelerator
        begun = time.monotonic()
        largest = accelerator.probe(machine, base, chosen, machine.boot_timeout, _MOST_STEPS * _STEP_BYTES)
    except ConstruirError as error:
        largest = str(error)
    if largest:
        log.info("the least memory of %s is not known: %s", base.name, largest)
        return 0
    patience_s = max(_LEAST_PATIENCE_S, _PATIENCE * (time.monotonic() - begun))
    too_few, enough = 0, _MOST_STEPS
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if accelerator.probe(machine, base, chosen, patience_s, middle * _STEP_BYTES):
            too_few = middle
        else:
            enough = middle
    return enough * _STEP_BYTES
