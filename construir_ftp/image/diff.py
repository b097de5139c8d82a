"""Why two base images are not the same: packages, recipe, and every file that differs; nothing is mounted."""

import msgspec

from construir_ftp.diskimage.compare import Difference, compare_images
from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage


class Change(msgspec.Struct, frozen=True):
    """Something with a name, as it was in the old image and is in the new one; None where it is not there."""

    what: str
    old: str | None
    new: str | None


class ImageDiff(msgspec.Struct, frozen=True, kw_only=True):
    """All that differs. `settings` are the recipe's own, `ingredients` the files of base-image/ (digests), `packages`
    versions, `parts` digests; `files` are those of the root disk.
    """

    settings: list[Change]
    ingredients: list[Change]
    packages: list[Change]
    parts: list[Change]
    files: list[Difference]

    def is_same(self) -> bool:
        """Whether the images are the same, byte for byte."""
        return not self.parts


def compare(old: BaseImage, new: BaseImage) -> ImageDiff:
    """Why `new` is not `old`. Raises ConstruirError where a root disk is damaged."""
    before, after = old.manifest, new.manifest
    parts = _changes(_digests(before), _digests(after))
    same_root = baseimage.ROOT not in {change.what for change in parts}
    return ImageDiff(
        settings=_changes(_settings(before), _settings(after)),
        ingredients=_changes(before.ingredients, after.ingredients),
        packages=_changes(before.packages, after.packages),
        parts=parts,
        files=[] if same_root else compare_images(old.root, new.root),
    )


def _settings(manifest: baseimage.Manifest) -> dict[str, str]:
    return {
        "suite": manifest.suite,
        "architecture": manifest.architecture,
        "included packages": " ".join(manifest.include),
        "snapshot": manifest.snapshot,
        "sources": "; ".join(manifest.sources),
        "date": f"{manifest.date:%Y-%m-%dT%H:%M:%SZ}" if manifest.date else "",
    }


def _digests(manifest: baseimage.Manifest) -> dict[str, str]:
    return {name: part.sha256 for name, part in manifest.parts.items()}


def _changes(before: dict[str, str], after: dict[str, str]) -> list[Change]:
    names = sorted(before.keys() | after.keys())
    return [Change(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]
