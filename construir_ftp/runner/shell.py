"""A machine to look around in: a login on the caller's terminal, and a copy of a job at /job if one is named.

It is the machine that the job had, or would have, with all it depends on, and forgets like that one. The copy has no
name in any directory while it is in use: it is gone with this process, however that ends. The original is only read.
"""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import get_args

import msgspec

from construir_ftp import formats, locks
from construir_ftp.config import Config
from construir_ftp.diskimage import codec
from construir_ftp.errors import ConstruirError, MachineUnavailableError, UsageError
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.intake import live_check
from construir_ftp.intake.judge_pool import JudgePool
from construir_ftp.intake.verdict import Verdict
from construir_ftp.jobs import names, request
from construir_ftp.jobs.job import read_result
from construir_ftp.jobs.request import Dependencies, Wishes
from construir_ftp.jobs.result import WISHES, Result, Status
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.layers import squashfs
from construir_ftp.layers.resolver import DependencyError, Offer
from construir_ftp.machine import accelerator
from construir_ftp.machine.console import Console
from construir_ftp.machine.disks import MOST_READ_ONLY
from construir_ftp.machine.ending import Ending
from construir_ftp.machine.guest import Errand
from construir_ftp.machine.shape import Shape
from construir_ftp.machine.terminal import Terminal
from construir_ftp.runner.allocation import Allocation

_HOSTNAME = "construir"
# A login needs no run.sh; the guest, which lays no layers for a job that could not be run, is named a program there is.
_ANY_PROGRAM = "../bin/sh"
# What is left to the appliance is added to what a contributor wrote.
_MOST_WISHES_BYTES = 2 * request.MOST_BYTES


class Subject(msgspec.Struct, frozen=True):
    """A job to look at: its image, what its judge found that to be, and what its machine is to have."""

    image: Path
    found: Verdict
    wanted: Wishes

    def in_machine(self, base: str | None, with_dependencies: bool) -> "Subject":
        """The same, with another base image if `base` names one, and perhaps without what it depends on."""
        changed = msgspec.structs.replace(
            self.wanted,
            base=base or self.wanted.base,
            dependencies=self.wanted.dependencies if with_dependencies else Dependencies(),
        )
        return msgspec.structs.replace(self, wanted=changed)


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """A machine to be opened: what kind of one, what its guest is told, and descriptors of the disks in it, which are a
    copy of the job's, if there is a job, and those to be read.
    """

    shape: Shape
    errand: Errand
    disk: int | None = None
    read_only: tuple[int, ...] = ()


# -- what is to be looked at ---------------------------------------------------------------------------------


def find(what: str, config: Config) -> Subject:
    """What is meant by `what`: an image's file, a result's directory, or the id of a job in done/ of the spool.

    What a job's machine is to have is said by the construir.toml beside a result, else by the one in the image. Raises
    UsageError where it is none of these, or has no image, RefusedError where a server would refuse the image.
    """
    place = Path(what)
    if place.is_file():
        return _judged(place, config)
    if not place.is_dir():
        place = config.spool_path() / "done" / place.name
        if what != place.name or not place.is_dir():
            raise UsageError(f"{what} is no job image, no directory of a result, and no id of a job in {place.parent}")
    return _in_result(place, config)


def _judged(image: Path, config: Config) -> Subject:
    with JudgePool(config.gate) as judges:
        found = live_check.check_file(image, judges)
    return Subject(image, found, request.read(found.construir_toml))


def _in_result(place: Path, config: Config) -> Subject:
    result = _read_result(place)
    if result.image is None:
        raise UsageError(f"{place} has no image to look at: its job was {result.status}")
    image = place / Path(result.image).name
    if not image.is_file():
        raise UsageError(f"{place} lacks the image that its result.json names, {image.name!r}; fetch it too")
    subject = _judged(image, config)
    wanted = subject.wanted
    if (place / WISHES).is_file():
        with (place / WISHES).open("rb") as file:
            wanted = request.read(request.decode(file.read(_MOST_WISHES_BYTES)))
    base = wanted.base or (result.base_image.name if result.base_image else "")
    # It has been given its space already.
    return msgspec.structs.replace(subject, wanted=msgspec.structs.replace(wanted, base=base, space=None))


def _read_result(place: Path) -> Result:
    if not Job(place).result.exists():
        raise UsageError(f"{place} has no result.json; name a result, or an image: construir pack {place}")
    try:
        result = read_result(Job(place))
    except ConstruirError as error:
        raise UsageError(f"{place}: result.json can't be read ({error}); name the image in it") from error
    if result.status not in get_args(Status):
        raise UsageError(f"{place}: result.json can't be read (it has an unknown status); name the image in it")
    return result


# -- the machine, and what is in it ----------------------------------------------------------------------------


def empty(base: BaseImage, config: Config) -> Visit:
    """A machine of the usual kind, without a job."""
    return Visit(shape=_usual(base, config), errand=Errand(hostname=_HOSTNAME, filesystem=""))


@contextmanager
def prepared(subject: Subject, config: Config, stop: socket.socket) -> Iterator[Visit]:
    """The machine that a job had, with a copy of its disk; layers are made first if they have to be.

    Raises DependencyError where something it depends on can't be had, or not any more, RefusedError where it asks for
    more than there is here, ConstruirError for what else is wrong; OSError if there is no room.
    """
    needs = _settle(subject, config, stop)
    with ExitStack() as stack:

        def take(path: Path, how: int) -> int:
            descriptor = os.open(path, how | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            return descriptor

        with locks.scratch_directory() as place:
            job = Job(place)
            needs.unpack(subject.image, subject.found, job)
            layers = [layer.image for layer in needs.layers]
            if needs.wishes.env:
                layers.append(squashfs.squashed(needs.wishes.env, place / "exports.sqfs"))
            disk = take(job.disk, os.O_RDWR)
            read_only = tuple(take(path, os.O_RDONLY) for path in (*layers, *needs.disks(job)))
        errand = needs.errand(names.slug(names.name_of(subject.image)), subject.found.filesystem)
        yield Visit(
            shape=msgspec.structs.replace(needs.shape, read_only_disks=MOST_READ_ONLY if read_only else 0),
            errand=msgspec.structs.replace(errand, run=_ANY_PROGRAM, env={}, layers=len(layers)),
            disk=disk,
            read_only=read_only,
        )


def _settle(subject: Subject, config: Config, stop: socket.socket) -> Allocation:
    offer = Offer.of(Spool.prepare(config.spool_path()), config)
    try:
        base = offer.base(subject.wanted)
    except ConstruirError as error:
        raise ConstruirError(f"{error}; or name another with --base") from error
    # Nobody is hurried here.
    wanted = msgspec.structs.replace(subject.wanted, base="", timeout=None, idle_timeout=None)
    offer.terms().check(wanted, subject.found.image_bytes)
    try:
        return Allocation.settle(offer, _usual(base, config), wanted, stop)
    except DependencyError as error:
        raise DependencyError(f"{error}; --without-dependencies opens a machine that lacks them") from error


def _usual(base: BaseImage, config: Config) -> Shape:
    choice = accelerator.choose(config.machine, config.images_path(), base)
    return Shape.of(config.machine, base, choice.accelerator, int(config.gate.max_image))


def check_target(target: Path) -> None:
    """Raise UsageError if no image can be kept there."""
    if target.exists() or not target.parent.is_dir():
        raise UsageError(f"{target} is there already, or its directory is not; keep the image in another file")


def keep(disk: int, target: Path) -> None:
    """Pack a disk, by its descriptor, into `target`, in the codec that its suffix says; what is there is complete."""
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as draft:
        packed = Path(draft) / target.name
        codec_name, patience_s = formats.of_file_name(target.name).name, codec.patience_s(os.fstat(disk).st_size)
        codec.pack(codec_name, Path(f"/proc/self/fd/{disk}"), packed, patience_s)
        packed.rename(target)


# -- the visit -----------------------------------------------------------------------------------------------


def attend(visit: Visit, terminal: Terminal, boot_timeout_s: float, stop: socket.socket) -> Ending:
    """Open the machine until whoever is at `terminal` switches it off or leaves it.

    Raises MachineUnavailableError where there is no machine to be had, ConstruirError when `stop` was readable.
    """
    rows, columns = terminal.size()
    console = visit.shape.architecture.console
    env = {"TERM": terminal.kind, "LINES": str(rows), "COLUMNS": str(columns), "CONSOLE": console}
    read_only = tuple(Path(f"/proc/self/fd/{descriptor}") for descriptor in visit.read_only)
    with terminal.raw(), Console.start(visit.shape) as machine:
        errand = msgspec.structs.replace(visit.errand, env=env)
        ending = machine.attend(terminal, errand, visit.disk, read_only, boot_timeout_s, stop)
    _check(ending, visit.shape.base, terminal)
    return ending


def _check(ending: Ending, base: BaseImage, terminal: Terminal) -> None:
    """Raise ConstruirError unless the machine was switched off, or left, by whoever was at it."""
    if terminal.has_left:
        return
    if ending.claims.started or ending.claims.error:  # a login says neither; a guest that knows of none runs the job
        raise ConstruirError(f"base image '{base.name}' is too old for this; run: construir image build {base.name}")
    if ending.killed == "stopped":
        raise ConstruirError("stopped by a signal; the machine is gone, and nothing was kept")
    if ending.killed:
        raise ConstruirError("the machine did not switch itself off and was killed; nothing was kept")
    if ending.status:
        raise MachineUnavailableError(
            f"the machine's program ended with status {ending.status}: {ending.words or 'no words'}"
        )
