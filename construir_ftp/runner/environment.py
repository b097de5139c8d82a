"""What a run's machine was, beyond its shape: for whoever wants to have the same again, or to judge how safe it was."""

import functools
import hashlib
import os
import platform
from pathlib import Path

from construir_ftp import process
from construir_ftp.errors import ConstruirError
from construir_ftp.formats import FORMATS
from construir_ftp.image.baseimage import Manifest
from construir_ftp.jail import check as jailcheck
from construir_ftp.jail import jail
from construir_ftp.jail.check import JailPart
from construir_ftp.jobs.result import Environment
from construir_ftp.machine import qemu
from construir_ftp.machine.shape import Shape
from construir_ftp.trust.statement import WHOLE_JAIL

_CPUS = Path("/proc/cpuinfo")
_NOT_KNOWN = "not known"


def of(shape: Shape, codec: str) -> Environment:
    """That of a machine, and of what packs a job's image in `codec`."""
    return Environment(
        engine=_engine(shape),
        host_kernel=os.uname().release,
        guest_kernel=shape.base.manifest.uml if shape.accelerator == "uml" else shape.base.manifest.kernel_release,
        processor=shape.architecture.processor if shape.accelerator == "tcg" else _host_processor(),
        jail=jail_in_words(),
        packing=" ".join(FORMATS[codec].pack_argv) or "none",
        packages_sha256=packages_sha256(shape.base.manifest),
    )


@functools.cache
def jail_in_words() -> str:
    """What the jails of this process lack of what is required; else "whole", and which parts it is without."""
    try:
        parts = jailcheck.in_force(jail.host())
    except (ConstruirError, OSError):
        return _NOT_KNOWN
    if lacking := jailcheck.missing(parts):
        return f"lacks: {_names(lacking)}"
    without = [part for part in parts if not part.in_force]
    return f"{WHOLE_JAIL}, without {_names(without)}" if without else WHOLE_JAIL


def _names(parts: list[JailPart]) -> str:
    return ", ".join(part.name for part in parts)


def packages_sha256(manifest: Manifest) -> str:
    """The digest of a base image's packages: of sorted lines name=version."""
    lines = "".join(f"{name}={version}\n" for name, version in sorted(manifest.packages.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _engine(shape: Shape) -> str:
    if shape.accelerator == "uml":
        return f"user-mode Linux {shape.base.manifest.uml}"
    found = process.find(shape.program)
    return _version(shape.program, shape.architecture.package, Path(found).stat().st_mtime_ns if found else 0)


@functools.lru_cache(maxsize=8)
def _version(program: str, package: str, _changed_ns: int) -> str:
    try:
        return qemu.version(program, package)
    except ConstruirError:
        return _NOT_KNOWN


@functools.cache
def _host_processor() -> str:
    """As the host's kernel calls it; on some architectures it has no name."""
    lines = (line.partition(":") for line in _CPUS.read_text().splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == "model name"), platform.machine())
