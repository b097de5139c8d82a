"""Machines for tests and benches: of what shape they are, and what they are given to do. Plain functions."""

import functools
from pathlib import Path

import msgspec
import pytest

from construir_ftp.config import Config, MachineSection
from construir_ftp.errors import ConstruirError
from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.machine import accelerator
from construir_ftp.machine.ending import Assignment
from construir_ftp.machine.guest import Errand
from construir_ftp.machine.shape import Shape
from construir_ftp.units import Size
from tests.support import umlimage
from tests.support.images import run

# Kinds of machine: what works here by default, and user-mode ones.
KINDS = ("", "uml")
# Small ones, so that several fit into any test machine.
SMALL = MachineSection(memory=Size.parse("512MiB"), scratch=Size.parse("512MiB"))

# No test of a machine comes near its deadlines, however busy the host is, but where they are what is tested.
LONG_S = 600.0


def shape(images: Path, base: BaseImage, machine: MachineSection = SMALL, read_only_disks: int = 0) -> Shape:
    """A machine under the accelerator that works here; `images` is where the base images are."""
    choice = accelerator.choose(machine, images, base)
    return Shape.of(machine, base, choice.accelerator, max_disk_bytes=2**30, read_only_disks=read_only_disks)


def of_kind(kind: str, images: Path, read_only_disks: int = 0) -> Shape:
    """A small machine of a kind: "uml", or nothing for what works here by default. Skips the test if there is none."""
    if kind and (why := _why_no_user_mode()):
        pytest.skip(why)
    name = umlimage.NAME if kind else Config().images.default
    machine = msgspec.structs.replace(SMALL, accelerator=kind or SMALL.accelerator)
    return shape(images, baseimage.find(images, name), machine, read_only_disks)


def config(kind: str, text: str) -> str:
    """The configuration `text` of an appliance, for a kind of machine: "uml", or nothing for what works by default."""
    if not kind:
        return text
    images = f'[images]\ndefault = "{umlimage.NAME}"\n'
    return images + text.replace("[machine]\n", f'[machine]\naccelerator = "{kind}"\n')


def light(text: str) -> str:
    """The configuration `text` for an appliance whose machines are not what is tested: those that start soonest.

    User-mode machines, which take a tenth of what emulated ones do, if the tests' image of that kind is here and works.
    """
    return config("" if _why_no_user_mode() else "uml", text)


def light_base(images: Path) -> BaseImage:
    """The base image that `light` configures."""
    return baseimage.find(images, Config().images.default if _why_no_user_mode() else umlimage.NAME)


@functools.cache
def _why_no_user_mode() -> str:
    images = Config().images_path()
    try:
        base = baseimage.find(images, umlimage.NAME)
    except ConstruirError as error:
        return str(error)
    return accelerator.why_no_user_mode(SMALL, images, base)


def assignment(
    place: Path,
    job: Path,
    *,
    size: str = "4M",
    timeout_s: float = LONG_S,
    idle_timeout_s: float = LONG_S,
    boot_timeout_s: float = LONG_S,
    errand: Errand | None = None,
    layers: tuple[Path, ...] = (),
    results: tuple[Path, ...] = (),
) -> Assignment:
    """The job in the directory `job`, on a new disk in `place`, after which the guest is named; both are made anew."""
    place.mkdir(exist_ok=True)
    task = Assignment(
        disk=place / "disk.img",
        errand=errand or Errand(hostname=place.name, filesystem="ext2"),
        layers=layers,
        results=results,
        timeout_s=timeout_s,
        idle_timeout_s=idle_timeout_s,
        boot_timeout_s=boot_timeout_s,
        mount_timeout_s=LONG_S,
        output=place / "output.log",
        console=place / "console.log",
        log_head_bytes=2**16,
        log_tail_bytes=2**16,
    )
    for left in (task.disk, task.output, task.console):
        left.unlink(missing_ok=True)
    run("mke2fs", "-q", "-t", "ext2", "-d", job, task.disk, size)
    task.disk.chmod(0o600)
    return task
