"""A machine to look around in: a login on the caller's terminal, and a copy of a job at /job if one is named.

It is the machine that jobs get, and forgets like theirs. The copy has no name in any directory while it is in use: it
is gone with this process, however that ends. The original is only read.
"""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from construir_ftp import codec, gate, jobfile, results, workplace
from construir_ftp.config import Config
from construir_ftp.court import Court
from construir_ftp.errors import ConstruirError, MachineUnavailableError, UsageError
from construir_ftp.image import BaseImage
from construir_ftp.machine import accelerator
from construir_ftp.machine.console import Console
from construir_ftp.machine.guest import Errand
from construir_ftp.machine.qemu import Shape
from construir_ftp.machine.vm import Ending
from construir_ftp.runner import local
from construir_ftp.runner.needs import CODEC_S
from construir_ftp.spool import Job
from construir_ftp.terminal import Terminal

_HOSTNAME = "construir"


class Subject(msgspec.Struct, frozen=True):
    """A job's image, and the name of the base image it ran on, where that is known."""

    image: Path
    base: str | None = None


class Copy(msgspec.Struct, frozen=True):
    """An unpacked copy of a job's image, which is there as long as its descriptor is open."""

    name: str
    filesystem: str
    descriptor: int


class _Result(msgspec.Struct):
    """The part of result.json that is needed here."""

    status: results.Status
    image: str | None
    base_image: results.BaseImageUsed | None = None


# -- what is to be looked at ---------------------------------------------------------------------------------


def find(what: str, spool: Path) -> Subject:
    """The image meant by `what`: an image's file, a result's directory, or the id of a job in done/ of `spool`.

    Raises UsageError where it is none of these, or has no image.
    """
    place = Path(what)
    if place.is_file():
        return Subject(place)
    if not place.is_dir():
        place = spool / "done" / place.name
        if what != place.name or not place.is_dir():
            raise UsageError(f"{what} is no job image, no directory of a result, and no id of a job in {place.parent}")
    return _find_in_result(place)


def _find_in_result(place: Path) -> Subject:
    try:
        result = msgspec.json.decode(Job(place).result.read_bytes(), type=_Result)
    except FileNotFoundError as error:
        raise UsageError(f"{place} has no result.json; name a result, or an image: construir pack {place}") from error
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:  # ValueError: it isn't UTF-8
        raise UsageError(f"{place}: result.json can't be read ({error}); name the image in it") from error
    if result.image is None:
        raise UsageError(f"{place} has no image to look at: its job was {result.status}")
    image = place / Path(result.image).name
    if not image.is_file():
        raise UsageError(f"{place} lacks the image that its result.json names, {image.name!r}; fetch it too")
    return Subject(image, result.base_image.name if result.base_image else None)


@contextmanager
def copied(image: Path, config: Config) -> Iterator[Copy]:
    """A copy of a job's image, if the gate lets it in. Raises RefusedError if not; OSError if there is no room."""
    with Court(config.gate) as court:
        found = gate.check(image, court)
    with workplace.make() as place:
        disk = Job(place).disk
        codec.unpack(found.codec, image, disk, found.image_bytes, CODEC_S)
        descriptor = os.open(disk, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield Copy(jobfile.slug(local.name_of(image)), found.filesystem, descriptor)
    finally:
        os.close(descriptor)


def check_target(target: Path) -> None:
    """Raise UsageError if no image can be kept there."""
    if target.exists() or not target.parent.is_dir():
        raise UsageError(f"{target} is there already, or its directory is not; keep the image in another file")


def keep(copy: Copy, target: Path) -> None:
    """Pack the copy into `target`, in the codec that its suffix says; it is there when it is complete."""
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as draft:
        packed = Path(draft) / target.name
        codec.pack(codec.of_name(target.name).name, Path(f"/proc/self/fd/{copy.descriptor}"), packed, CODEC_S)
        packed.rename(target)


# -- the visit -----------------------------------------------------------------------------------------------


def visit(base: BaseImage, copy: Copy | None, config: Config, terminal: Terminal, stop: socket.socket) -> Ending:
    """Open a machine, with `copy` as its job, until whoever is at `terminal` switches it off or leaves it.

    Raises MachineUnavailableError where there is no machine to be had, ConstruirError when `stop` was readable.
    """
    choice = accelerator.choose(config.machine, config.images_path(), base)
    shape = Shape.of(config.machine, base, choice.accelerator, int(config.gate.max_image))
    rows, columns = terminal.size()
    errand = Errand(
        hostname=copy.name if copy else _HOSTNAME,
        filesystem=copy.filesystem if copy else "",
        env={"TERM": terminal.kind, "LINES": str(rows), "COLUMNS": str(columns)},
    )
    disk = copy.descriptor if copy else None
    with terminal.raw(), Console.start(shape) as machine:
        ending = machine.attend(terminal, errand, disk, config.machine.boot_timeout, stop)
    _check(ending, base, terminal)
    return ending


def _check(ending: Ending, base: BaseImage, terminal: Terminal) -> None:
    """Raise ConstruirError unless the machine was switched off, or left, by whoever was at it."""
    if terminal.has_left:
        return
    if ending.report.started or ending.report.error:  # a login says neither; a guest that knows of none runs the job
        raise ConstruirError(f"base image '{base.name}' is too old for this; run: construir image build {base.name}")
    if ending.killed == "stopped":
        raise ConstruirError("stopped by a signal; the machine is gone, and nothing was kept")
    if ending.killed:
        raise ConstruirError("the machine did not switch itself off and was killed; nothing was kept")
    if ending.qemu_status:
        raise MachineUnavailableError(f"QEMU ended with status {ending.qemu_status}: {ending.qemu_words or 'no words'}")
