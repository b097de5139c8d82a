"""KVM where it works, TCG elsewhere, user-mode Linux where it was asked for; and "works" means that the real kernel
came up to its init, in time.

A /dev/kvm that opens but hangs every guest is common in nested virtualisation, and a guest that only runs
the BIOS can pass on it. A user-mode kernel that is older than the processor may die at its first process. So a machine
is booted under a deadline, once for each host kernel and guest kernel, with QEMU and who may open the device, or with
the processor.
"""

import grp
import hashlib
import logging
import os
import platform
import pwd
import socket
from pathlib import Path

import msgspec

from construir_ftp import architecture, files, process
from construir_ftp.config import MachineSection
from construir_ftp.errors import ConstruirError, MachineUnavailableError
from construir_ftp.image import baseimage, uml
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jail import check as jailcheck
from construir_ftp.jail import jail, uids
from construir_ftp.machine import qemu, uml_engine
from construir_ftp.machine.shape import Accelerator, Shape, program_of
from construir_ftp.machine.vm import Machine

log = logging.getLogger("construir.runner")

DEVICE = Path("/dev/kvm")
# A worker boots in half a second under KVM; a nested one that works at all stays well below this.
_PROBE_S = 10.0
_PROBE_MEMORY = 256 * 2**20


class Choice(msgspec.Struct, frozen=True):
    """Which accelerator machines get, and why in plain words."""

    accelerator: Accelerator
    reason: str


def choose(machine: MachineSection, images: Path, base: BaseImage, probe_s: float = _PROBE_S) -> Choice:
    """What `machine.accelerator` ("auto", "kvm", "tcg" or "uml") comes to on this host, for a base image.

    The first "auto" on a host boots a machine, which takes up to `probe_s`, and twice that where it fails; the answer
    is kept in `images`.
    """
    wanted = machine.accelerator
    if wanted == "tcg":
        return Choice("tcg", "TCG, as configured")
    if wanted == "uml" and base.manifest.architecture == architecture.native():
        if problem := why_no_user_mode(machine, images, base):
            raise ConstruirError(f"machine.accelerator is uml, but {problem}; set it to auto to run under KVM or TCG")
        return Choice("uml", "user-mode Linux, as configured")
    if base.manifest.architecture != architecture.native():
        return Choice("tcg", f"TCG: {base.manifest.architecture} is not this host's own architecture")
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        problem = f"{DEVICE} " + ("may not be opened by this user" if DEVICE.exists() else "is missing")
    else:
        problem = _remembered_probe(machine, images, base, probe_s)
    if not problem:
        return Choice("kvm", "KVM: a probe machine came up")
    if wanted == "kvm":
        raise ConstruirError(f"machine.accelerator is kvm, but {problem}; set it to auto to run under TCG")
    return Choice("tcg", f"TCG: {problem}")


def remedy(machine: MachineSection, architecture_name: str, device: Path = DEVICE) -> str:
    """What to do to have KVM for machines of an architecture, where `choose` has come to TCG."""
    if machine.accelerator == "tcg":
        return 'machine.accelerator = "auto" uses KVM where it works'
    if architecture_name != architecture.native():
        return f"a base image of {architecture.native()} can use KVM: see images.default"
    if not device.exists():
        where = "in the firmware, or for this machine if it is a virtual one"
        return f"switch virtualisation on {where}; then load kvm_intel or kvm_amd with modprobe"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"let this user open {device}, as root: {_by_its_group(device, os.geteuid())}; then log in again"
    if os.geteuid() == 0 and not _opens_to_jails(device):
        return f"let machines, which have a uid of their own, open it: {_by_its_group(device)}"
    return f"{device} opens, but boots nothing: see whether another kernel of this host does better"


def _by_its_group(device: Path, uid: int = 0) -> str:
    """The commands that open the device to a group, and bring the user into that: its own, else Debian's group kvm."""
    status = device.stat()
    group, steps = _name(status.st_gid), []
    if not group:
        group = "kvm"
        if not _is_group(group):  # udev of the next boot goes by it
            steps.append(f"groupadd --system {group}")
        steps.append(f"chgrp {group} {device}")
    if status.st_mode & 0o060 != 0o060:
        steps.append(f"chmod 660 {device}")
    if uid:
        steps.append(f"usermod --append --groups {group} {pwd.getpwuid(uid).pw_name}")
    return " && ".join(steps)


def _name(gid: int) -> str:
    """What a group is called; empty for root's, and for one that has no name here."""
    try:
        return grp.getgrgid(gid).gr_name if gid else ""
    except KeyError:
        return ""


def _is_group(name: str) -> bool:
    return any(group.gr_name == name for group in grp.getgrall())


def _opens_to_jails(device: Path) -> bool:
    """Whether a machine that root starts can open the device: by its group, or since anyone can."""
    mode = device.stat().st_mode
    return mode & 0o006 == 0o006 or (mode & 0o060 == 0o060 and bool(uids.groups((device,))))


def why_no_user_mode(machine: MachineSection, images: Path, base: BaseImage) -> str:
    """Why no user-mode machine of a base image can be run here; empty if one can. The first time one is tried."""
    if problem := uml_engine.why_none(base):
        return problem
    try:
        jailcheck.demand_once(jail.host())
    except (ConstruirError, OSError) as error:
        return str(error)
    processor = hashlib.sha256(
        Path("/proc/cpuinfo").read_bytes().partition(b"flags")[2].partition(b"\n")[0]
    ).hexdigest()
    kernels = platform.release(), base.manifest.parts[f"{baseimage.UML}/{uml.KERNEL}"].sha256
    memory = _memory_of("uml", (*kernels, processor), images)
    if memory.exists():
        return ""
    # A failure may come of anything, and is tried again at the next start: nothing else runs jobs until then.
    problem = probe(machine, base, "uml", machine.boot_timeout)
    log.info("user-mode probe: %s", problem or "works")
    if not problem:
        _remember(memory, "")
    return problem


def _remembered_probe(machine: MachineSection, images: Path, base: BaseImage, probe_s: float) -> str:
    program, package = program_of(machine, base), architecture.find(base.manifest.architecture).package
    # Who may open the device counts, too: after that is mended, the answer is another.
    device = DEVICE.stat()
    access = f"{os.geteuid()} {device.st_uid} {device.st_gid} {device.st_mode:o}"
    kernels = platform.release(), base.manifest.parts[baseimage.KERNEL].sha256
    memory = _memory_of("kvm", (*kernels, qemu.version(program, package), access), images)
    try:
        return memory.read_text()
    except FileNotFoundError:
        pass
    # The answer is kept for good: a probe that failed, since the host stood still or was busy, is made once more.
    problem = probe(machine, base, "kvm", probe_s) and probe(machine, base, "kvm", probe_s)
    log.info("KVM probe: %s", problem or "works")
    _remember(memory, problem)
    return problem


def _memory_of(what: str, key: tuple[str, ...], images: Path) -> Path:
    """Where the outcome of a trial is kept, for all to whom the same applies."""
    mark = hashlib.sha256("\n".join(key).encode()).hexdigest()[:16]
    return images / f".{what}-{mark}"


def _remember(memory: Path, problem: str) -> None:
    try:
        files.replace_durably(memory, problem.encode())
    except OSError as error:
        log.warning("the outcome of a probe can't be kept in %s: %s", memory.parent, error.strerror)


def probe(
    machine: MachineSection,
    base: BaseImage,
    accelerator: Accelerator,
    deadline_s: float = _PROBE_S,
    memory_bytes: int = _PROBE_MEMORY,
    stop: socket.socket | None = None,
) -> str:
    """Boot a machine as far as its init; empty if that went well, else what went wrong in plain words.

    Raises StoppedError as soon as `stop` is readable.
    """
    shape = Shape(
        program=program_of(machine, base),
        base=base,
        accelerator=accelerator,
        memory_bytes=memory_bytes,
        cpus=1,
        max_disk_bytes=0,
    )
    try:
        with Machine.start(shape) as started:
            started.wait_until_ready(deadline_s, stop)
    except MachineUnavailableError as error:
        return f"{error} (under {accelerator.upper()})"
    return ""


def why_none(base: BaseImage, machine: MachineSection) -> str:
    """Why there are no machines of another architecture, or no user-mode ones, for a base image; empty if there are."""
    name = base.manifest.architecture
    if name == architecture.native():
        # What its machines lack otherwise is mended, and jobs wait for it.
        return uml_engine.why_none(base) if machine.accelerator == "uml" else ""
    try:
        kind = architecture.find(name)
    except ConstruirError as error:
        return str(error)
    return "" if process.find(kind.qemu) else f"{kind.qemu} is not installed; run: apt install {kind.package}"
