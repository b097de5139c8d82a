"""What no base image needs any more: old versions, unused names, what interrupted builds left.

Nothing that somebody uses goes, whatever the list says: a version in use is locked (versions).
"""

from collections.abc import Collection
from pathlib import Path

import msgspec

from construir_ftp import files
from construir_ftp.errors import BaseImageError, ConstruirError, MissingError
from construir_ftp.image import baseimage, versions


class Doomed(msgspec.Struct, frozen=True):
    """A directory to go, what it is in plain words, why it goes, and the room it takes."""

    path: Path
    what: str
    reason: str
    size_bytes: int


def plan(images: Path, needed: Collection[str], kept: Collection[str] = ()) -> list[Doomed]:
    """What can go when the images called `needed`, and the versions whose digests are in `kept`, are all that is to
    stay; nothing is touched.
    """
    doomed = [_doom(path, "rest of a build", "it was interrupted") for path in versions.leftovers(images)]
    for name in versions.names(images):
        live = versions.live(images, name)
        for version in versions.every(images, name):
            what = f"{name}@{version.path.name}"
            if version.manifest.digest() in kept:
                continue
            if version.path.resolve() != live:
                doomed.append(_doom(version.path, what, "it is not the live version"))
            elif name not in needed:
                doomed.append(_doom(version.path, what, "no configuration, job or layer names it"))
    return [entry for entry in doomed if not versions.is_held(entry.path)]


def _doom(path: Path, what: str, reason: str) -> Doomed:
    return Doomed(path, what, reason, files.tree_bytes(path))


def collect(images: Path, needed: Collection[str], kept: Collection[str] = ()) -> list[Doomed]:
    """Remove what plan says; returns what is gone."""
    gone = []
    for entry in plan(images, needed, kept):
        link = images / entry.path.parent.name
        if versions.discard(entry.path, link if entry.path.resolve() == link.resolve() else None):
            gone.append(entry)
    versions.sweep(images)
    return gone


def remove(images: Path, name: str) -> None:
    """Remove a name and all its versions. Raises MissingError, and ConstruirError, with nothing removed, if one is in
    use.
    """
    try:
        baseimage.find(images, name)
    except BaseImageError as error:
        raise MissingError(error.what) from error
    ours = [version.path for version in versions.every(images, name)]
    if any(versions.is_held(version) for version in ours):
        raise ConstruirError(f"base image '{name}' is in use; stop what runs on it, then remove it")
    files.remove(images / name)
    for version in ours:
        versions.discard(version)
    files.fsync(images)


def trim(images: Path, name: str, kept: Collection[str] = ()) -> None:
    """Of the versions of a name keep the live one, the one before, which it can be compared with, and those whose
    digests are in `kept`.
    """
    live = versions.live(images, name)
    old = [version for version in versions.every(images, name) if version.path.resolve() != live]
    for version in old[1:]:
        if version.manifest.digest() not in kept:
            versions.discard(version.path)
