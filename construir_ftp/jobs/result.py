"""What a result is: the names of its files in done/ID/, and result.json.

done/ID/ holds the image in the codec it came in, output.log, console.log, the construir.toml that the job was run by,
artifacts/, result.json, provenance.intoto.jsonl, SHA256SUMS and its signature; install.log instead of the logs where
its packages can't be installed. What the guest claims and what the host measured are kept apart. Nothing here makes a
result: that is for the runner.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

from construir_ftp import __version__, schema
from construir_ftp.errors import one_line
from construir_ftp.jobs import request

OUTPUT, CONSOLE, SUMS, ARTIFACTS = "output.log", "console.log", "SHA256SUMS", "artifacts"
RESULT, PROVENANCE, SIGNATURE = "result.json", "provenance.intoto.jsonl", "SHA256SUMS.sig"
# A directory: what was uploaded, where that is kept.
UPLOADED = "uploaded"
# What was known of the job when it was admitted: job's Record.
RECORD = "job.json"
# What was said while packages for it were installed; only where that failed.
INSTALL = "install.log"
WISHES = request.FILE
# Of what is left out a message has so much.
_SAID_CHARACTERS, _MOST_SAID = 200, 5

Status = Literal["success", "failed", "timeout", "idle-timeout", "no-result", "dependency-failed", "cancelled", "lost"]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
# How a machine came to its job: it booted for it, was cloned for it, or had been waiting for it.
BootPath = Literal["cold", "warm", "pooled"]


class Claims(msgspec.Struct):
    """What the guest has said of itself so far. Nothing in it is believed.

    `signal` is the number of the one that killed run.sh; `powered_off` is whether the job called poweroff; `starved`
    the name of the first process that the guest's kernel killed for want of memory.
    """

    ready: bool = False
    started: bool = False
    exit_code: int | None = None
    error: str | None = None
    clean: bool = False
    unwritten: str | None = None
    signal: int | None = None
    powered_off: bool = False
    starved: str | None = None

    def finished(self) -> bool:
        """Whether the guest has said how the job ended, or why it can't."""
        return self.exit_code is not None or self.error is not None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Of a machine's whole life, unless it says otherwise.

    `cpu_seconds`: QEMU's processor time, for its start, for the guest's boot or rehearsal, for the job.
    `peak_memory_bytes`: the most of QEMU that was resident at once: the guest's memory, as far as it was touched, with
    QEMU's own. What a clone has in common with its template counts in full, though it is there once for all clones;
    what the guest changed of its root disk does not count.
    `written_bytes`: what QEMU wrote since the guest was given its job: to the job's disk, every time, and to what the
    root disk forgets. Blocks of zeros are not written, they become holes. None where there was no job, or where the
    kernel keeps no account.
    """

    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    written_bytes: int | None = None


class Artifact(msgspec.Struct, frozen=True):
    """A file in artifacts/; `path` is where it was in the image, in ASCII, and cut if it is very long. `executable` is
    whether its owner could run it there: FTP carries no modes.
    """

    name: str
    path: str
    bytes: int
    sha256: str
    executable: bool = False


class Measured(Usage, frozen=True, kw_only=True):
    """What was seen from outside the machine. `paused_seconds` is for how long it was stopped; see brake of machine."""

    output_bytes: int
    qemu_status: int | None
    paused_seconds: float = 0.0


class BaseImageUsed(msgspec.Struct, frozen=True):
    """The base image the job ran on."""

    name: str = ""
    digest: str = ""


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What else a rebuild needs to have alike, and what the run's safety rested on.

    `engine` is the program that was the machine, in its own words; `processor` what the machine's was, `jail` "whole",
    or what it lacked. `packing` is the command that packed the image, `packages_sha256` the digest of the sorted lines
    name=version of the base image's packages.
    """

    engine: str = ""
    host_kernel: str = ""
    guest_kernel: str = ""
    processor: str = ""
    jail: str = ""
    packing: str = ""
    packages_sha256: str = ""


class LayerUsed(msgspec.Struct, frozen=True):
    """A layer that was laid over the root; `contents` as in its manifest."""

    name: str = ""
    sha256: str = ""
    contents: list[str] = []


class Signer(msgspec.Struct, frozen=True):
    """Whose signature of a `file` of a Debian source was found good: the fingerprint of the primary key, and its user
    id. Both are empty where no signature was asked for, since no keyring is configured.
    """

    file: str = ""
    fingerprint: str = ""
    user_id: str = ""

    def words(self) -> str:
        """For people."""
        if not self.fingerprint:
            return f"{self.file}: nobody's signature was asked for, since no keyring is configured"
        return f"{self.file}: signed by {self.user_id}, key {self.fingerprint}"


class Used(msgspec.Struct, frozen=True):
    """What the job depended on: enough to have the same machine again. Layers lowest first, results by their ids, and
    the SHA-256 of each one's image, if its SHA256SUMS had it.
    """

    layers: list[LayerUsed] = []
    results: list[str] = []
    results_sha256: dict[str, str] = {}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """result.json, for whoever writes it and for all who read it. Times are aware UTC; what never happened is null.

    `status` is one of Status, or one that a later version has. What an earlier version left out has its default here.
    """

    version: int = 1
    id: str = ""
    name: str = ""
    contributor: str = ""
    status: str
    reason: str = ""
    exit_code: int | None = None
    image: str | None = None
    codec: str = ""
    filesystem: str = ""
    upload_sha256: str = ""
    upload_bytes: int = 0
    source_signers: tuple[Signer, ...] = ()
    image_bytes: int = 0
    received: Moment | None = None
    booted: Moment | None = None
    started: Moment | None = None
    first_output: Moment | None = None
    ended: Moment | None = None
    published: Moment | None = None
    accelerator: str | None = None
    boot_path: BootPath | None = None
    base_image: BaseImageUsed | None = None
    memory_bytes: int | None = None
    cpus: int | None = None
    attempt: int = 0
    used: Used | None = None
    environment: Environment | None = None
    artifacts: tuple[Artifact, ...] = ()
    artifacts_left_out: tuple[str, ...] = ()
    claimed: Claims | None = None
    measured: Measured | None = None
    construir: str = __version__

    def lacking(self) -> str:
        """Which of its `outputs` are no artifacts, and why, in one line; empty where all are."""
        said = [one_line(words)[:_SAID_CHARACTERS] for words in self.artifacts_left_out[:_MOST_SAID]]
        more = len(self.artifacts_left_out) - len(said)
        told = "; ".join([*said, f"and {more} more"] if more else said)
        return f"not in {ARTIFACTS}/, though outputs of {WISHES} asks for it: {told}" if told else ""


def moment(seconds: float) -> datetime:
    """Seconds since the Epoch as an aware time."""
    return datetime.fromtimestamp(seconds, UTC)


def decode(content: bytes) -> Result:
    """result.json, whoever it comes from. Raises msgspec.MsgspecError where it makes no sense."""
    return schema.from_json(content, Result)


def encode(result: Result) -> bytes:
    """result.json's bytes."""
    return msgspec.json.format(msgspec.json.encode(result)) + b"\n"
