"""What is signed of a result: an in-toto Statement v1 with SLSA provenance v1 (slsa.dev/spec/v1.0/provenance).

The subjects are what the job made, the byproducts all else in its result. A job that did not succeed has another
buildType, which no policy written for jobs accepts.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from construir_ftp import schema
from construir_ftp.errors import DamagedError
from construir_ftp.jobs.result import ARTIFACTS, RESULT, Result
from construir_ftp.trust.dsse import Envelope

STATEMENT, PREDICATE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
BUILD_TYPE, FAILED_BUILD_TYPE = "urn:construir:job:v1", "urn:construir:job-without-success:v1"
WHOLE_JAIL = "whole"
_NOTHING: dict[str, Any] = {}


class Digest(msgspec.Struct, frozen=True):
    """Of a file."""

    sha256: str


class Resource(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file, a disk or an image, as in-toto describes one (ResourceDescriptor)."""

    name: str = ""
    digest: Digest | None = None
    uri: str = ""
    annotations: dict[str, Any] = {}


class Statement(msgspec.Struct, frozen=True, rename="camel"):
    """All of it; `predicate` as its type says."""

    subject: tuple[Resource, ...]
    predicate_type: str
    predicate: dict[str, Any]
    type_: str = msgspec.field(default=STATEMENT, name="_type")

    def encoded(self) -> bytes:
        """What is signed."""
        return msgspec.json.encode(self)

    def digests(self) -> dict[str, str]:
        """Of the subjects, by their names."""
        return {each.name: each.digest.sha256 for each in self.subject if each.digest}


def read(envelope: Envelope, source: str) -> Statement:
    """What an envelope holds. Raises DamagedError."""
    try:
        found = schema.from_json(envelope.payload, Statement)
    except msgspec.MsgspecError as error:
        raise DamagedError(f"{source}: not a statement of in-toto's: {error}") from error
    if found.type_ != STATEMENT:
        raise DamagedError(f"{source}: not a statement of in-toto's: its type is {found.type_!a}")
    return found


def of_result(
    result: Result, sums: dict[str, str], wishes: str, host: str, made_of: dict[str, Any] = _NOTHING
) -> Statement:
    """The provenance of a result: `sums` are the digests of its files, `wishes` the construir.toml it was run by,
    `host` is what the appliance is called, `made_of` what the base image is built again by.
    """
    names = made(result, sums)
    return Statement(
        subject=tuple(_file(name, sums) for name in names),
        predicate_type=PREDICATE,
        predicate={
            "buildDefinition": {
                "buildType": BUILD_TYPE if result.status == "success" else FAILED_BUILD_TYPE,
                "externalParameters": {
                    "job": {
                        "sha256": result.upload_sha256,
                        "bytes": result.upload_bytes,
                        "codec": result.codec,
                        "filesystem": result.filesystem,
                    },
                    "construir.toml": wishes,
                    **_signers(result),
                },
                "internalParameters": _machine(result),
                "resolvedDependencies": list(_dependencies(result, made_of)),
            },
            "runDetails": {
                "builder": {"id": builder(result, host), "version": {"construir": result.construir}},
                "metadata": {
                    "invocationId": f"{result.id}/{result.attempt}",
                    "startedOn": result.started or result.received,
                    "finishedOn": result.ended or result.published,
                },
                "byproducts": [_file(name, sums) for name in sums if name not in names],
            },
            "construir_status": result.status,
            "construir_exitCode": result.exit_code,
        },
    )


def made(result: Result, sums: dict[str, str]) -> list[str]:
    """The files that the job made: its image and its artifacts. Where it made none, result.json stands for them."""
    names = [name for name in sums if name == result.image or name.startswith(f"{ARTIFACTS}/")]
    return names or [RESULT]


def builder(result: Result, host: str) -> str:
    """Who vouches: another one for each kind of machine, and for each jail that is not whole, of the same appliance."""
    jail = result.environment.jail if result.environment else ""
    wall = "jail" if jail.startswith(WHOLE_JAIL) else "no-whole-jail"
    return f"construir://{host}/{result.accelerator or 'no-machine'}/{wall}"


def _file(name: str, sums: dict[str, str]) -> Resource:
    return Resource(name=name, digest=Digest(sums[name]))


def _signers(result: Result) -> dict[str, Any]:
    """Who has signed the Debian source that the upload was made of, where it was made of one."""
    return {"source_signers": result.source_signers} if result.source_signers else {}


def _machine(result: Result) -> dict[str, Any]:
    told = {key: getattr(result, key) for key in ("accelerator", "boot_path", "memory_bytes", "cpus", "image_bytes")}
    return {**told, "environment": result.environment}


def _dependencies(result: Result, made_of: dict[str, Any]) -> Iterator[Resource]:
    yield Resource("upload", Digest(result.upload_sha256))
    if result.base_image:
        base = result.base_image
        digest = Digest(base.digest.removeprefix("sha256:"))
        yield Resource(base.name, digest, f"construir:base-image/{base.name}", made_of)
    used = result.used
    for layer in used.layers if used else ():
        what = {"contents": layer.contents}
        yield Resource(layer.name, Digest(layer.sha256), f"construir:layer/{layer.name}", what)
    for job_id in used.results if used else ():
        known = (used.results_sha256 if used else {}).get(job_id)
        yield Resource(job_id, Digest(known) if known else None, f"construir:result/{job_id}")
