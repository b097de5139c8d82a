"""What a provenance says of how to have the same again: the upload, what it is run by, and what it is run on."""

from typing import Any

import msgspec

from construir_ftp.errors import DamagedError
from construir_ftp.jobs.result import ARTIFACTS, PROVENANCE
from construir_ftp.trust.statement import Resource, Statement

_BASE, _LAYER, _RESULT = "construir:base-image/", "construir:layer/", "construir:result/"


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `run` is the job's id and which of its machines; `wishes` the construir.toml it was run by, `made` the
    digests of its artifacts by their names.
    """

    run: str
    builder: str
    upload_sha256: str
    wishes: str
    base: Resource | None
    layers: tuple[Resource, ...]
    results: tuple[Resource, ...]
    made: dict[str, str]


def of(told: Statement) -> Recipe:
    """The recipe of a job that ran. Raises DamagedError for anything else."""
    try:
        definition, details = told.predicate["buildDefinition"], told.predicate["runDetails"]
        outside, used = definition["externalParameters"], _resources(definition["resolvedDependencies"])
        recipe = Recipe(
            run=str(details["metadata"]["invocationId"]),
            builder=str(details["builder"]["id"]),
            upload_sha256=str(outside["job"]["sha256"]),
            wishes=str(outside["construir.toml"]),
            base=next((one for one in used if one.uri.startswith(_BASE)), None),
            layers=tuple(one for one in used if one.uri.startswith(_LAYER)),
            results=tuple(one for one in used if one.uri.startswith(_RESULT)),
            made={name: digest for name, digest in told.digests().items() if name.startswith(f"{ARTIFACTS}/")},
        )
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise DamagedError(f"{PROVENANCE} is not that of a job: {error}") from error
    return recipe


def _resources(told: Any) -> list[Resource]:
    return msgspec.convert(told, list[Resource])
