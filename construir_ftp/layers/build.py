"""Debian packages -> a layer: they are unpacked and configured in a machine without network, as its root.

Maintainer scripts are as hostile as any job, so nothing of what they leave is believed: the machine packs it as a tar
file on its own disk, and the host only carries those bytes from the one jail into another, where they become squashfs.
"""

import errno
import functools
import logging
import re
import shlex
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from construir_ftp import files, process
from construir_ftp.diskimage import extfs
from construir_ftp.errors import CommandError, ConstruirError, StoppedError
from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.layers import apt, marks, progress, store, waiting
from construir_ftp.layers.apt import Archive, Plan
from construir_ftp.layers.squashfs import squash
from construir_ftp.layers.store import Layer, Store
from construir_ftp.machine import outcome
from construir_ftp.machine.ending import Assignment, Ending
from construir_ftp.machine.guest import Errand
from construir_ftp.machine.outcome import MachineFault, Outcome
from construir_ftp.machine.shape import Shape
from construir_ftp.machine.vm import Machine
from construir_ftp.units import in_words

log = logging.getLogger(__name__)

# Part of every layer's name: raise it when this module makes something else of the same packages.
RECIPE = 1
_TAR = "layer.tar"
_SPARE_BYTES = 256 * 2**20
_MAKE_DISK_S = 3600.0
_LOG_BYTES = 256 * 1024
_QUOTED_CHARACTERS = 400
# What dpkg says of every package, and alternatives of every choice; what is wrong is said in other words.
_ROUTINE = re.compile(
    r"\(Reading database|Selecting previously unselected|Preparing to unpack|Unpacking |Setting up |Processing triggers"
    r"|Adding |Creating |Generating |Updating |update-alternatives: (using|warning)|Created symlink"
)
# A layer on another one is made when that has at least half of what is wanted.
_WORTH_REUSING = 0.5
# So that published layers and results find room beside.
_MOST_IN_A_CHAIN = 6

_BEGIN = """#!/bin/sh -e
exec 2>&1
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
# No service is started by an installation (Debian's invoke-rc.d).
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
cd /job/debs
"""
_END = """dpkg --configure --pending
rm -f /usr/sbin/policy-rc.d /var/lib/dpkg/*-old /var/cache/debconf/*-old /var/log/dpkg.log /var/log/alternatives.log
cd /job/changes
rmdir --ignore-fail-on-non-empty *
# Which file a copy was made of means nothing on another disk.
tar --create --file=/job/layer.tar --numeric-owner --xattrs --xattrs-include='*' \\
    --xattrs-exclude='trusted.overlay.origin' --xattrs-exclude='trusted.overlay.impure' -- *
"""


class InstallationError(ConstruirError):
    """A set of packages could not be installed; the message says why, in the words of who knows. `log` is all that was
    said meanwhile, cut in its middle if it is long.
    """

    def __init__(self, message: str, log: bytes = b"") -> None:
        super().__init__(message)
        self.log = log


def _tell_nobody(_progress: str) -> None:
    pass


class Workshop(msgspec.Struct, frozen=True):
    """Where layers are made: with packages of an archive, in machines of a shape, each within so many seconds.

    As soon as `stop` is readable the machine at work is killed, and whatever waits ends. `at_work` is called before
    anyone has to wait, with nothing, and then with how far it is, in words for anyone; also in a thread of its own.
    """

    layers: Store
    packages: Archive
    shape: Shape
    timeout_s: float
    stop: socket.socket | None = None
    at_work: Callable[[str], None] = _tell_nobody

    def ensure(self, plan: Plan) -> Layer:
        """The layer of a plan: the one that is there, or else a new one; who asks while it is made waits for it.

        Raises InstallationError, with dpkg's last words, where the packages can't be installed; that or StoppedError
        when stopped.
        """
        name = apt.name_of(self.shape.base, plan, RECIPE)
        if self.layers.find(name) is None:
            self.at_work("")
        with self.layers.alone(name, self.stop):
            found = self.layers.find(name) or self._build_or_say_why(plan, name)
            self.layers.use(found)
            return found

    def _build_or_say_why(self, plan: Plan, name: str) -> Layer:
        self._demand_room(plan)
        begun = time.monotonic()
        log.info("layer %s: installing %d packages for %s", name, len(plan.packages), " ".join(plan.asked) or "a job")
        try:
            made = self._build(plan, name)
            log.info("layer %s: made of %d packages in %.1f s", name, len(plan.packages), time.monotonic() - begun)
            return made
        except OSError as error:
            # Its job is told: tried again and again it would fill the disk each time, and no other job would be taken.
            if error.errno != errno.ENOSPC:
                raise
            raise InstallationError("the packages could not be installed: the disk is full; try again later") from error

    def _build(self, plan: Plan, name: str) -> Layer:
        below = self._largest_subset(plan)
        chain = self.layers.chain(below) if below else []
        has = set(below.manifest.contents) if below else set()
        self.at_work(f"fetching {plan.download_bytes / 2**20:.1f} MiB")
        debs = zip(plan.packages, self.packages.fetch(plan), strict=True)
        new = {package.name: file for package, file in debs if package.label not in has}
        with self.layers.hold(chain), self.layers.draft() as draft:
            filled = _make_disk(draft, _script(plan, new), list(new.values()), plan, self.stop)
            self.at_work("starting a machine")
            with progress.told(draft / "output.log", new, self.at_work):
                ending = self._install(draft, filled, chain)
            _check(ending, draft / "output.log")
            self.at_work("packing what they have changed")
            _pack(filled, draft / store.IMAGE, self.shape.base, self.stop)
            part = baseimage.measure(draft / store.IMAGE)
            manifest = store.LayerManifest(
                name=name,
                kind="packages",
                base=self.shape.base.manifest.digest(),
                architecture=self.shape.base.manifest.architecture,
                contents=plan.versions(),
                asked=list(plan.asked),
                under=[layer.name for layer in chain],
                bytes=part.bytes,
                installed_bytes=plan.installed_bytes,
                sha256=part.sha256,
                created=datetime.now(UTC),
            )
            return self.layers.put(draft, manifest)

    def _demand_room(self, plan: Plan) -> None:
        """Raises InstallationError where the disk would fill on the way."""
        # The package files as fetched, in a tree and in its image; what they become as files, tar file and layer.
        needed_bytes = 3 * plan.download_bytes + 3 * plan.installed_bytes
        free_bytes = files.free_bytes(self.layers.path)
        if free_bytes < needed_bytes:
            raise InstallationError(
                f"the packages can't be installed: that takes {needed_bytes / 2**20:.1f} MiB of disk here,"
                f" {free_bytes / 2**20:.1f} MiB are free; try again later"
            )

    def _largest_subset(self, plan: Plan) -> Layer | None:
        """A layer of the same base image that has much of what is wanted and nothing else, with room for one on it."""
        wanted = set(plan.versions())
        fitting = [
            layer
            for layer in self.layers.every()
            if layer.manifest.kind == "packages"
            and layer.manifest.base == self.shape.base.manifest.digest()
            and set(layer.manifest.contents) < wanted
            and layer.manifest.installed_bytes >= _WORTH_REUSING * plan.installed_bytes
            and len(layer.manifest.under) + 1 < _MOST_IN_A_CHAIN
        ]
        return max(fitting, key=lambda layer: layer.manifest.installed_bytes, default=None)

    def _install(self, draft: Path, filled: Path, below: list[Layer]) -> Ending:
        task = Assignment(
            disk=filled,
            errand=Errand(hostname="layer", filesystem="ext4", layers=len(below), keeps_changes=True),
            layers=tuple(layer.image for layer in below),
            timeout_s=self.timeout_s,
            idle_timeout_s=self.timeout_s,
            boot_timeout_s=self.timeout_s,
            mount_timeout_s=self.timeout_s,
            output=draft / "output.log",
            console=draft / "console.log",
            log_head_bytes=_LOG_BYTES,
            log_tail_bytes=_LOG_BYTES,
        )
        with Machine.start(self.shape) as machine:
            return machine.run(task, self.stop)


def _script(plan: Plan, new: dict[str, Path]) -> str:
    """dpkg's calls in apt's order; what a layer below has already is left out."""
    lines = []
    for verb, names in plan.steps:
        if verb == "remove":
            # As apt does: what depends on it is there with the next steps again.
            lines.append(f"dpkg --force-unsafe-io --force-depends --remove {shlex.join(names)}\n")
            continue
        here = [new[name].name if verb == "unpack" else name for name in names if name in new]
        if here:
            lines.append(f"dpkg --force-unsafe-io --{verb} {shlex.join(here)}\n")
    return _BEGIN + "".join(lines) + _END


def _make_disk(draft: Path, script: str, debs: list[Path], plan: Plan, stop: socket.socket | None) -> Path:
    size_bytes = plan.download_bytes + 2 * plan.installed_bytes + _SPARE_BYTES
    filled = draft / "disk.img"
    with tempfile.TemporaryDirectory(dir=draft) as name:
        tree = Path(name)
        (tree / "debs").mkdir()
        for file in debs:
            waiting.demand_not_stopped(stop)
            shutil.copyfile(file, tree / "debs" / file.name)
        (tree / "run.sh").write_text(script)
        (tree / "run.sh").chmod(0o755)
        options = ["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0"]
        process.run(
            ["mke2fs", *options, "-d", tree, filled, f"{size_bytes >> 10}K"],
            timeout_s=_MAKE_DISK_S,
            meanwhile=lambda: waiting.demand_not_stopped(stop),
        )
    return filled


def _check(ending: Ending, output: Path) -> None:
    claims, judged = ending.claims, outcome.judge(ending)
    if isinstance(judged, Outcome) and judged.status == "success":
        return
    if isinstance(judged, MachineFault) and ending.killed != "stopped":
        raise ConstruirError(f"the machine that was to install packages: {judged.reason}")
    said = output.read_bytes()
    why = claims.error or f"exit code {claims.exit_code}"
    if ending.killed:
        why = f"{ending.killed} after {in_words(ending.limit_s)}" if ending.limit_s else ending.killed
    if claims.starved is not None:
        why += f", out of memory: {claims.starved} was killed"
    raise InstallationError(f"the packages could not be installed ({why}): {_what_matters(said)}", said)


def _what_matters(said: bytes) -> str:
    """What dpkg and maintainer scripts have said beside dpkg's routine: what failed first comes first in it."""
    lines = (line.strip() for line in said.decode(errors="replace").splitlines())
    told = "; ".join(line for line in lines if line and not _ROUTINE.match(line))
    return told[:_QUOTED_CHARACTERS] or "nothing was said"


def _pack(filled: Path, target: Path, base: BaseImage, stop: socket.socket | None) -> None:
    """Make the squashfs image. What is wrong with the tar file is the packages' doing: they were root there."""
    try:
        with filled.open("rb") as file, base.root.open("rb") as root:
            pieces = _until_stopped(_tar(extfs.Image(file)), stop)
            if base.manifest.uml:
                pieces = marks.demand_none_needed(pieces, functools.partial(_is_directory, extfs.Image(root)))
            squash(pieces, target, filled.stat().st_size)
    except StoppedError:
        raise
    except CommandError as error:
        log.warning("%s", error)  # it has paths of the host, which are nobody else's business
        raise InstallationError("the packages can't be made a layer of: they packed no proper tar file") from error
    except ConstruirError as error:
        raise InstallationError(f"the packages can't be made a layer of: {error}") from error


def _tar(filled: extfs.Image) -> Iterator[bytes]:
    """The tar file at the root of a disk, in pieces."""
    inode = filled.find(_TAR.encode())
    if inode is None or inode.kind != stat.S_IFREG or inode.size_bytes > filled.ext.blocks * filled.ext.block_bytes:
        raise ConstruirError("they left no tar file of what they changed")
    return filled.stream(inode)


def _is_directory(root: extfs.Image, path: bytes) -> bool:
    inode = root.find(*path.split(b"/"))
    return inode is not None and inode.kind == stat.S_IFDIR


def _until_stopped(pieces: Iterator[bytes], stop: socket.socket | None) -> Iterator[bytes]:
    for piece in pieces:
        waiting.demand_not_stopped(stop)
        yield piece
