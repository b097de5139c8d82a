"""What `construir check` looks at: each thing the appliance needs, whether it is there, and what to do if not.

Looks, boots one machine at most, and changes nothing but the memory of that probe. What it makes in a spool that other
computers have, too, is gone afterwards.
"""

import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from construir_ftp import architecture, files, process
from construir_ftp.appliance import completeness, demands, exposure, shared_spool
from construir_ftp.appliance.finding import Finding, State, attempt
from construir_ftp.architecture import Architecture
from construir_ftp.config import Config
from construir_ftp.errors import INSTALL, BaseImageError, ConstruirError
from construir_ftp.formats import FORMATS
from construir_ftp.image import baseimage, emulation, uml
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.intake import live_check
from construir_ftp.intake.judge_pool import JudgePool
from construir_ftp.jail import check as jailcheck
from construir_ftp.jail import jail
from construir_ftp.jobs import judging, nodes
from construir_ftp.jobs.spool import STATES
from construir_ftp.machine import accelerator, qemu
from construir_ftp.pack import pack
from construir_ftp.slurm import trial
from construir_ftp.trust import key_place, node_key

# Programs the appliance starts, and the Debian package of each.
TOOLS = {
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    **{row.pack_argv[0]: row.package for row in FORMATS.values() if row.package},
    "openssl": "openssl",
}
_BUILD_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "cpio": "cpio",
    "sfdisk": "fdisk",
    "mformat": "mtools",
    "grub-mkimage": "grub-pc-bin",
    "qemu-img": "qemu-utils",
}


_ONLY_WALL = "the jail is the only wall between a job and this host"
_JAIL_REMEDY = "jobs run without it; jail.require_jail = true lets none run where a part that it requires is missing"


def check(config: Config) -> list[Finding]:
    """Look at everything, in the order a new user would mend it."""
    return [
        finding
        for look in (
            _program,
            _qemu,
            _other_architectures,
            _tools,
            _jail,
            _libmagic,
            _judging,
            _base_image,
            _kvm,
            _spool,
            free_space,
            _permissions,
            shared_spool.findings,
            _demands,
            _key,
            key_for_nodes,
            _names,
            _users,
            _slurm,
            exposure.certificate_ends,
            exposure.passwords,
        )
        for finding in look(config)
    ]


def _program(_config: Config) -> Iterator[Finding]:
    remedy = f"install Construir anew: its Debian package, or in a checkout: {INSTALL}"
    yield attempt("program", remedy, completeness.look)


def _qemu(config: Config) -> Iterator[Finding]:
    kind = architecture.find(architecture.native())
    remedy = f"apt install {kind.package}"
    yield attempt("QEMU", remedy, lambda: qemu.version(config.machine.qemu or kind.qemu, kind.package))


def _other_architectures(config: Config) -> Iterator[Finding]:
    built = {base.manifest.architecture for base in baseimage.every(config.images_path())}
    for kind in architecture.KNOWN.values():
        if kind.name != architecture.native():
            yield _machines_of(kind, kind.name in built)


def _machines_of(kind: Architecture, is_wanted: bool) -> Finding:
    """Whether images of another architecture can be run here, and built."""
    if not process.find(kind.qemu):
        remedy, what = f"apt install {kind.package}", f"machines of {kind.name}"
        if is_wanted:
            return Finding(what, "problem", f"none: {kind.qemu} is missing", remedy)
        return Finding(what, "ok", f"none, and no base image is for them; to have some: {remedy}")
    text = f"can run here, emulated by {kind.qemu}"
    problem = "" if emulation.runs_here(kind.name) else emulation.why_not(kind.name)
    return Finding(f"machines of {kind.name}", "ok", text + (f"; images can't be built: {problem}" if problem else ""))


def _tools(_config: Config) -> Iterator[Finding]:
    for tools, state in ((TOOLS, "problem"), (_BUILD_TOOLS, "warning")):
        missing = sorted({package for tool, package in tools.items() if not process.find(tool)})
        what = "tools to build base images" if tools is _BUILD_TOOLS else "tools"
        if missing:
            yield Finding(what, state, f"missing: {', '.join(missing)}", f"apt install {' '.join(missing)}")  # type: ignore[arg-type]
        else:
            yield Finding(what, "ok", ", ".join(sorted(tools)))


def _libmagic(config: Config) -> Iterator[Finding]:
    yield attempt("libmagic", "apt install libmagic1 e2fsprogs zstd", lambda: _judge_a_sample(config))


def _judging(config: Config) -> Iterator[Finding]:
    """Whether the FTP server, which may be allowed less than this command, has judges."""
    if detail := judging.read(config.spool_path()).detail:
        text = f"uploads are answered with 451, since the FTP server can't have them judged: {detail}"
        remedy = "mend that, or what its service unit forbids; the FTP server tries again by itself"
        yield Finding("judges", "problem", text, remedy)


def _judge_a_sample(config: Config) -> str:
    """Pack the smallest job there is and have it judged: libmagic, the decompressors and the judge's limits."""
    with tempfile.TemporaryDirectory(prefix="construir-check-") as name:
        source, sample = Path(name) / "job", Path(name) / "sample.img.zst"
        source.mkdir()
        (source / "run.sh").write_text("#!/bin/sh\n")
        (source / "run.sh").chmod(0o755)
        pack.pack(source, sample, 0)
        with JudgePool(config.gate) as judges:
            found = live_check.check_file(sample, judges)
    return f"the judge knows a sample job for {found.filesystem} in {found.codec}"


def _jail(config: Config) -> Iterator[Finding]:
    try:
        parts = jailcheck.in_force(jail.host())
    except (ConstruirError, OSError) as error:
        yield Finding("jail", "problem", str(error), "apt install bubblewrap, and allow user namespaces")
        return
    there = ", ".join(part.name for part in parts if part.in_force)
    yield Finding("jail", "ok", f"in force: {there or 'nothing'}")
    lacking: dict[tuple[State, str], list[str]] = {}
    for part in parts:
        if not part.in_force:
            state: State = "problem" if part.required and config.jail.require_jail else "warning"
            lacking.setdefault((state, part.why), []).append(part.name)
    for (state, why), names in lacking.items():
        yield Finding(f"jail: {', '.join(names)}", state, f"not in force: {why}", _JAIL_REMEDY)


def _base_image(config: Config) -> Iterator[Finding]:
    name = config.images.default
    try:
        base = baseimage.find(config.images_path(), name)
        baseimage.verify(base)
    except BaseImageError as error:
        yield Finding("base image", "problem", error.what, error.remedy)
    except (ConstruirError, OSError) as error:
        yield Finding("base image", "problem", str(error), "name another as images.default")
    else:
        text = f"{name}, {base.manifest.digest()[:19]}, {len(base.manifest.packages)} packages"
        yield Finding("base image", "ok", text)


def _kvm(config: Config) -> Iterator[Finding]:
    try:
        base = baseimage.find(config.images_path(), config.images.default)
        choice = accelerator.choose(config.machine, config.images_path(), base)
    except BaseImageError:
        yield Finding("accelerator", "problem", "not known without a base image", "build that, then check again")
        return
    except ConstruirError as error:
        yield Finding("accelerator", "problem", str(error), "mend that, then check again")
        return
    if choice.accelerator == "kvm":
        yield Finding("accelerator", "ok", choice.reason)
    elif choice.accelerator == "uml":
        yield Finding("accelerator", "ok", f"{choice.reason}: {_ONLY_WALL}")
    else:
        remedy = accelerator.remedy(config.machine, base.manifest.architecture)
        yield Finding("accelerator", "warning", choice.reason, f"jobs take 10 to 20 times as long; {remedy}")
        if base.manifest.architecture == uml.ARCHITECTURE == architecture.native():
            yield Finding("user-mode Linux", "ok", _user_mode(base))


def _user_mode(base: BaseImage) -> str:
    build = "" if base.manifest.uml else f"construir image build --uml {base.name}, and "
    return (
        f"not in use; with it jobs would be 2 to 8 times as fast, but {_ONLY_WALL} (see docs/jail.md);"
        f' to have it: {build}machine.accelerator = "uml"'
    )


def _spool(config: Config) -> Iterator[Finding]:
    spool = config.spool_path()
    present = [spool / state for state in STATES if (spool / state).is_dir()]
    if not present:
        yield Finding("spool", "ok", f"{spool} will be made by: construir serve")
    elif len({path.stat().st_dev for path in present}) > 1:
        text = f"{spool} is spread over several file systems, so that jobs can't be moved in one step"
        yield Finding("spool", "problem", text, f"keep {', '.join(STATES)} on one file system")
    else:
        yield Finding("spool", "ok", f"{spool}, on one file system")


def free_space(config: Config) -> Iterator[Finding]:
    place = _nearest(config.spool_path())
    if not _keeps_files(place):
        text = f"{place} is the kernel's, and keeps no files"
        yield Finding("free space", "problem", text, "choose another place with --spool, or spool.path")
        return
    free, floor = files.free_bytes(place), config.spool.min_free
    text = f"{free // 2**20} MiB free in {place}, {floor // 2**20} MiB are kept free"
    if free < floor:
        yield Finding("free space", "problem", text, "make room, or lower spool.min_free: no job is taken until then")
    else:
        yield Finding("free space", "ok", text)


def _permissions(config: Config) -> Iterator[Finding]:
    for what, path in (("spool", config.spool_path()), ("images", config.images_path())):
        place = _nearest(path)
        if os.access(place, os.W_OK | os.X_OK) and _keeps_files(place):
            yield Finding(f"permissions: {what}", "ok", f"{place} is writable")
        elif what == "images" and baseimage.names(path):
            yield Finding(
                f"permissions: {what}", "ok", f"{place} is another user's, who builds them; here they are read"
            )
        else:
            state: State = "problem" if what == "spool" else "warning"
            remedy = f"make it writable for this user, or name another with --{what}"
            yield Finding(f"permissions: {what}", state, f"{place} is not writable", remedy)


def _demands(config: Config) -> Iterator[Finding]:
    remedy = "until it is mended construir serve does not start"
    for demand in demands.DEMANDS:
        found = attempt(demand.subject, remedy, functools.partial(demand.look, config))
        advice = demand.advise(config) if found.state == "ok" else ""
        if found.text:
            yield msgspec.structs.replace(found, state="warning", remedy=advice) if advice else found


def _key(config: Config) -> Iterator[Finding]:
    path = key_place.private(config.spool_path(), config.trust)

    def look() -> str:
        key_place.demand_not_lost(config.spool_path(), path)
        if os.access(path, os.R_OK):
            key_place.demand_secret(path)
        signers = [key.fingerprint for key in key_place.known(config.spool_path())[:1]]
        return f"{path}; results are signed with {signers[0] if signers else 'it from the next start on'}"

    if path.exists() or key_place.known(config.spool_path()):
        yield attempt("key", "see docs/trust.md", look)
    else:
        yield Finding("key", "ok", f"{path} will be made by: construir serve")


def key_for_nodes(config: Config) -> Iterator[Finding]:
    """Whether nodes can read the key that certifies theirs; nothing if none was admitted, or the key is elsewhere."""
    spool = config.spool_path()
    path, admitted = key_place.private(spool, config.trust), node_key.admitted(spool)
    if admitted and path.is_relative_to(spool) and path.exists():
        text = f"{path} is the front's own key, and can be read by its nodes, such as {admitted[0]}"
        yield Finding("key and nodes", "warning", text, "on the front: move it out of the spool, and set trust.key")


def _names(config: Config) -> Iterator[Finding]:
    """Whether all nodes call the appliance the same in what they sign."""
    remedy = "set trust.name to the same in the configurations of the appliance and of its nodes"
    for line in nodes.other_names(config.spool_path()):
        yield Finding("trust.name", "warning", line.partition(": ")[0], remedy)


def _users(config: Config) -> Iterator[Finding]:
    path = config.users_path()
    if not path.exists():
        yield Finding("users", "warning", "nobody may send jobs yet", "construir user add NAME")
    elif path.stat().st_mode & 0o007:
        yield Finding("users", "warning", f"{path} can be read by everyone", f"chmod o= {path}")


def _slurm(config: Config) -> Iterator[Finding]:
    if config.slurm.is_used():
        remedy = "correct [slurm] of the configuration; if sbatch is missing: apt install slurm-client"
        yield attempt("Slurm", remedy, lambda: trial.look(config.slurm))


def _keeps_files(place: Path) -> bool:
    """Whether a directory is on a file system that has blocks: not on proc or sysfs, which root may seem to write."""
    return os.statvfs(place).f_blocks > 0


def _nearest(path: Path) -> Path:
    """The path itself, or the closest directory above it that is there."""
    return path if path.exists() else _nearest(path.parent)
