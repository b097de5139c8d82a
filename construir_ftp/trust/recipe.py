"""What a provenance says of how to have the same again: the upload, what it is run by, and what it is run on."""

from typing import Any

import msgspec

from construir_ftp.errors import DamagedError
from construir_ftp.jobs import portable_names
from construir_ftp.jobs.result import ARTIFACTS, PROVENANCE
from construir_ftp.trust.statement import Resource, Statement

_NOTICED = ("accelerator", "processor", "cpus", "memory_bytes", "guest_kernel")
_BASE, _LAYER, _RESULT = "construir:base-image/", "construir:layer/", "construir:result/"


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `run` is the job's id and which of its machines; `wishes` the construir.toml it was run by, `made` the
    digests of its artifacts by their names, `machine` what its machine was, as provenance has it.
    """

    run: str
    builder: str
    upload_sha256: str
    wishes: str
    base: Resource | None
    layers: tuple[Resource, ...]
    results: tuple[Resource, ...]
    made: dict[str, str]
    machine: dict[str, str] = {}

    def other_machine(self, here: "Recipe") -> list[str]:
        """In words, in what the machine of another run was not the same."""
        return [
            f"{what}: {self.machine[what]!a} where it ran first, {here.machine[what]!a} here"
            for what in sorted(self.machine.keys() & here.machine.keys())
            if self.machine[what] != here.machine[what]
        ]


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
            machine=_machine(definition.get("internalParameters", {})),
        )
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise DamagedError(f"{PROVENANCE} is not that of a job: {error}") from error
    return recipe


def _machine(told: dict[str, Any]) -> dict[str, str]:
    """What a program may notice of its machine."""
    known = {**told, **(told.get("environment") or {})}
    return {what: str(known[what]) for what in _NOTICED if known.get(what) is not None}


def _resources(told: Any) -> list[Resource]:
    """What the job was run on. Names lead to directories here, and those of packages into a search for them."""
    found = msgspec.convert(told, list[Resource])
    for one in found:
        msgspec.convert(one.annotations.get("contents", []), list[str])
        if one.uri and (why := portable_names.why_not(one.name)):
            raise DamagedError(f"{PROVENANCE} is not that of a job: a name of what it ran on {why}")
    return found
