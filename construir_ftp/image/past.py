"""What has to be known of a base image so that it can be built once more, byte for byte, when no version of it is left.

It may be a stranger's word. So it decides about the versions of packages alone: they come from the archive that is
configured here, with its signatures, and what comes out counts only if it has the digest that was asked for.
"""

import hashlib
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec

from construir_ftp.config import ImagesSection
from construir_ftp.errors import ConstruirError
from construir_ftp.image import recipe, versions
from construir_ftp.image.baseimage import ROOT, Manifest
from construir_ftp.image.recipe import Recipe
from construir_ftp.units import Size

# Debian Policy 5.6.1 (names) and 5.6.12 (versions).
_Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9+.-]*\Z")]
_Version = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9.+:~-]+\Z")]
# No option but the one that snapshots need: others do away with signatures (sources.list(5)).
_Line = Annotated[
    str, msgspec.Meta(pattern=r"^(deb (\[check-valid-until=no\] )?https?://[A-Za-z0-9.:/_~-]+( [a-z0-9./-]+)+)?\Z")
]
_MOST_ROOT_BYTES = 64 * 2**30
_MOST_NAMED = 5


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, as baseimage.Manifest has it. `recipe_files` is the digest of what of base-image/ it was made from."""

    suite: _Name
    architecture: _Name
    include: list[_Name]
    packages: dict[_Name, _Version]
    sources: list[_Line]
    created: datetime
    date: datetime | None
    root_bytes: Annotated[int, msgspec.Meta(ge=1, le=_MOST_ROOT_BYTES)]
    recipe_files: str
    snapshot: str = ""
    uml: str = ""
    imported: str = ""


def of(manifest: Manifest) -> Past:
    """That of an image that is here."""
    shared = {field: getattr(manifest, field) for field in Past.__struct_fields__ if hasattr(manifest, field)}
    return Past(
        **shared,
        root_bytes=manifest.parts[ROOT].bytes,
        recipe_files=_digest_of(manifest.ingredients),
    )


def read(told: dict[str, Any], name: str, digest: str) -> Past:
    """What somebody tells of an image, in plain types. Raises ConstruirError where it makes no sense."""
    if not told:
        raise ConstruirError(f"nothing says what base image {name} was made of; {_cure(name, digest)}")
    try:
        return msgspec.convert(told, Past)
    except msgspec.ValidationError as error:
        raise ConstruirError(f"what is told of base image {name} is not enough to build it again: {error}") from error


def _digest_of(ingredients: dict[str, str]) -> str:
    return hashlib.sha256("".join(f"{name} {ingredients[name]}\n" for name in sorted(ingredients)).encode()).hexdigest()


def recipe_of(past: Past, name: str, digest: str, settings: ImagesSection) -> Recipe:
    """What to build: from the archive as it was then, where a mirror of its earlier states is configured, else as it is
    now. Raises ConstruirError where that would be another image in any case.
    """
    if past.imported or past.date is None:
        raise ConstruirError(f"base image {name} was imported, so it can't be built again; {_cure(name, digest)}")
    if past.recipe_files != _digest_of(recipe.ingredients(bool(past.uml))):
        raise ConstruirError(
            f"base image {name} was made by another version of Construir, whose base-image/ differs: use that version,"
            f" or {_cure(name, digest)}"
        )
    mirror, keyring = recipe.archive(past.suite, settings, None, None)
    then = past.snapshot or f"{past.created.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    return Recipe(
        name=name,
        suite=past.suite,
        architecture=past.architecture,
        include=tuple(past.include),
        mirror=mirror,
        keyring=keyring,
        snapshot=then if settings.snapshot_mirror and not recipe.is_ubuntu(past.suite) else "",
        snapshot_mirror=settings.snapshot_mirror,
        root_bytes=Size(past.root_bytes),
        uml=settings.uml_source if past.uml else "",
    )


def options(past: Past, work: Path) -> list[str]:
    """What mmdebstrap(1) is told beside the recipe: to take these versions, and to name the archive as it was named.

    Needs two files in the directory `work`, which it writes.
    """
    pins, sources = work / "preferences", work / "sources.list"
    told = [f"Package: {name}\nPin: version {version}\nPin-Priority: 1001\n" for name, version in past.packages.items()]
    pins.write_text("\n".join(told))
    sources.write_text("".join(f"{line}\n" for line in past.sources))
    for path in (pins, sources):
        path.chmod(0o644)
    place = '"$1"/etc/apt/preferences.d'
    return [
        f"--setup-hook=cp {shlex.quote(str(pins))} {place}/construir",
        # The directory is as old afterwards as it was without.
        f'--customize-hook=at=$(stat -c %Y {place}); rm {place}/construir; touch -d "@$at" {place}',
        f'--customize-hook=cp {shlex.quote(str(sources))} "$1"/etc/apt/sources.list',
    ]


def difference(past: Past, found: Manifest, digest: str) -> ConstruirError:
    """Why what was built is another image than that of `digest`."""
    gone, cure = list(_gone(past, found)), _cure(found.name, digest)
    if not gone:
        kernel = f"; its user-mode kernel is {found.uml}, and was {past.uml}" if found.uml != past.uml else ""
        return ConstruirError(f"base image {found.name} comes out as another one, of the same packages{kernel}; {cure}")
    named = ", ".join(gone[:_MOST_NAMED]) + (", ..." if len(gone) > _MOST_NAMED else "")
    return ConstruirError(
        f"base image {found.name} can't be built as it was: of {len(gone)} of its {len(past.packages)} packages the"
        f" archive no longer has the version: {named}; set images.snapshot_mirror, or {cure}"
    )


def _cure(name: str, digest: str) -> str:
    return f"copy the directory {versions.stored_as(name, digest)} of the images from where the job ran"


def _gone(past: Past, found: Manifest) -> Iterator[str]:
    for name, version in sorted(past.packages.items()):
        if (other := found.packages.get(name)) != version:
            yield f"{name} {version} (there is {other or 'none'})"
