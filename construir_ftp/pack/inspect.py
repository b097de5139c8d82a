"""What a server would say of a file, and why, where there is no server.

The judge is the server's own, in a jail where one can be had. On a contributor's computer without the means it works in
this process, on a file that its owner has named. What only an appliance knows is not asked: which layers and results it
has, and which base images, unless they are here.
"""

import tomllib
from pathlib import Path

import msgspec

from construir_ftp import process
from construir_ftp.config import Config, GateSection, MachineSection
from construir_ftp.diskimage.stream import UploadReader, Whole
from construir_ftp.errors import ConfigError, RefusedError
from construir_ftp.intake import judge
from construir_ftp.intake.verdict import Verdict
from construir_ftp.jobs import names, request
from construir_ftp.jobs.request import Terms, Wishes

# What a jail takes at least, on Linux.
_PROGRAMS = ("setpriv", "prlimit")


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a file: `reply` is the server's, and `accepted` whether that is good. Sizes in bytes.

    `asks` is what its construir.toml says, as far as it says anything; what could not be found out is None.
    """

    file: str
    accepted: bool
    reply: str
    name: str
    codec: str | None = None
    filesystem: str | None = None
    upload_bytes: int | None = None
    image_bytes: int | None = None
    upload_sha256: str | None = None
    asks: dict[str, object] | None = None


def inspect(file: Path, config: Config) -> Inspection:
    """Judge a file as an upload of its name, by the limits of a configuration. Raises OSError."""
    report = Inspection(file=str(file), accepted=False, reply="", name=file.name)
    try:
        names.check_upload_name(file.name)
        report = msgspec.structs.replace(report, name=names.slug(file.name))
        found = judged(file, config.gate)
        facts = ("codec", "filesystem", "upload_bytes", "image_bytes", "upload_sha256")
        report = msgspec.structs.replace(report, **{name: getattr(found, name) for name in facts})
        found.require_admissible()
        wanted = request.of_job(found.construir_toml, found.filesystem)
        report = msgspec.structs.replace(report, asks=_said(wanted), name=wanted.name or report.name)
        _terms(config.machine, config.gate, wanted).check(wanted, found.image_bytes)
        _check_programs(found, wanted, config)
    except RefusedError as refused:
        return msgspec.structs.replace(report, reply=refused.as_reply())
    return msgspec.structs.replace(report, accepted=True, reply="226 Accepted")


def judged(file: Path, limits: GateSection) -> Verdict:
    """What kind of job a file is. Raises RefusedError if it is none, OSError."""
    if judge.LIBMAGIC and all(map(process.find, _PROGRAMS)):
        # Imported here: neither works everywhere.
        from construir_ftp.intake import live_check
        from construir_ftp.intake.judge_pool import JudgePool

        with JudgePool(limits) as judges:
            return live_check.check_file(file, judges)
    name = names.in_command(file.name)
    try:
        with file.open("rb") as upload:
            return judge.judge(UploadReader(upload, Whole(file.stat().st_size)), limits).naming(name)
    except RefusedError as refused:
        raise refused.naming("FILE", name) from refused


def _check_programs(found: Verdict, wanted: Wishes, config: Config) -> None:
    """By the base images that are here, if any are."""
    try:
        from construir_ftp.intake import base_programs

        images = config.images_path()
    except (
        ImportError,
        ConfigError,
    ):  # on a contributor's own machine, where no images are
        return
    base_programs.check(found, wanted, images, config.images.default)


def _said(wanted: Wishes) -> dict[str, object]:
    """As a construir.toml would say it; what is left to the appliance is left out."""
    plain = tomllib.loads(request.render(wanted))
    return {key: value for key, value in plain.items() if value != getattr(Wishes(), key)}


def _terms(machine: MachineSection, gate: GateSection, wanted: Wishes) -> Terms:
    """The most that any appliance with this configuration gives."""
    return Terms(
        timeout_s=machine.timeout,
        idle_timeout_s=machine.timeout,
        cpus=max(machine.cpus, machine.max_cpus),
        memory_bytes=int(max(machine.memory, machine.max_memory)),
        image_bytes=int(gate.max_image),
        bases=(wanted.base,),
    )
