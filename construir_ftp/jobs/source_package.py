"""A Debian source package: what its .dsc and .changes say, and the job that builds it.

Both are paragraphs of fields (dsc(5), deb-changes(5)), perhaps within a signature that is of one piece with the text
(RFC 9580, 7). A stranger wrote them, so `parse` is called in a jail only. Nothing here opens a file.
"""

import re
import shlex
from collections.abc import Iterator
from typing import Annotated

import msgspec

from construir_ftp.errors import RefusedError
from construir_ftp.jobs.request import Dependencies, Wishes
from construir_ftp.units import Size

# The largest .dsc and .changes of Debian's archive have a fifth of it.
MOST_BYTES = 512 * 1024
_MOST_FILES, _MOST_RELATIONS, _MOST_RELATION_CHARACTERS = 100, 500, 400
PLACE = "/build/reproducible-path"

_SOURCE = r"[a-z0-9][a-z0-9+.-]+"
_VERSION = r"([0-9]+:)?[0-9][A-Za-z0-9.+~-]*"
_FILE = r"[A-Za-z0-9][A-Za-z0-9._+~-]*"
_ENVELOPE = re.compile(
    r"-----BEGIN PGP SIGNED MESSAGE-----\n(?:[!-~]+: [^\n]*\n)*\n(.*?\n)-----BEGIN PGP SIGNATURE-----\n", re.DOTALL
)
_FIELD = re.compile(r"([A-Za-z][A-Za-z0-9-]*):[ \t]*([^\n]*(?:\n[ \t][^\n]*)*)(?:\n|\Z)")
_DEPENDS = ("Build-Depends", "Build-Depends-Arch", "Build-Depends-Indep")
_CONFLICTS = ("Build-Conflicts", "Build-Conflicts-Arch", "Build-Conflicts-Indep")

OUTPUTS = ("out/*",)
# What every build may count on (Debian Policy 4.2).
PACKAGES = ("build-essential",)
# Beside the sources the build has so much room, and so many times what they take.
_ROOM_BYTES, _ROOM_TIMES = 2**30, 10


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file that is named, with what it has to be."""

    name: Annotated[str, msgspec.Meta(pattern=rf"^{_FILE}\Z", max_length=128)]
    bytes: Annotated[int, msgspec.Meta(ge=0, le=2**50)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Control(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a .dsc, or a .changes, says.

    `relations` are build dependencies and conflicts, each as apt-get(8) satisfies one.
    """

    source: Annotated[str, msgspec.Meta(pattern=rf"^{_SOURCE}\Z", max_length=64)]
    version: Annotated[str, msgspec.Meta(pattern=rf"^{_VERSION}\Z", max_length=100)]
    distribution: Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9.+~/-]*\Z", max_length=64)] = ""
    architecture: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9 -]*\Z", max_length=2000)] = ""
    files: Annotated[tuple[File, ...], msgspec.Meta(min_length=1, max_length=_MOST_FILES)]
    relations: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=_MOST_RELATION_CHARACTERS)], ...],
        msgspec.Meta(max_length=_MOST_RELATIONS),
    ] = ()

    def __post_init__(self) -> None:
        if len({file.name for file in self.files}) < len(self.files):
            raise ValueError("a file is named twice")

    def directory(self) -> str:
        """Where it is unpacked: by its version without epoch and Debian's revision (deb-version(7)), as dpkg-source
        does.
        """
        version = self.version.rpartition(":")[2]
        return f"{PLACE}/{self.source}-{version.rpartition('-')[0] or version}"


# -- what is said ------------------------------------------------------------------------------------------------


def parse(text: bytes) -> Control:
    """What a .dsc or a .changes says; a signature around it is taken off, and not looked at. Raises RefusedError."""
    fields = _fields(_unwrapped(_decoded(text)))
    said = {
        "source": fields.get("source", ""),
        "version": fields.get("version", ""),
        "distribution": fields.get("distribution", ""),
        "architecture": fields.get("architecture", ""),
        "files": list(_files(fields.get("checksums-sha256", ""))),
        "relations": list(_relations(fields)),
    }
    try:
        return msgspec.convert(said, Control)
    except msgspec.ValidationError as error:
        raise RefusedError(f"it is not as Debian's tools write it: {error}") from error


def _decoded(text: bytes) -> str:
    if len(text) > MOST_BYTES:
        raise RefusedError(f"it is larger than {MOST_BYTES >> 10} KiB")
    try:
        return text.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise RefusedError(f"it is not UTF-8 text (byte {error.start})") from error


def _unwrapped(text: str) -> str:
    signed = _ENVELOPE.match(text)
    return re.sub(r"^- ", "", signed[1], flags=re.MULTILINE) if signed else text


def _fields(text: str) -> dict[str, str]:
    """The fields of one paragraph, by their names in small letters."""
    found, at, text = {}, 0, text.strip("\n")
    while at < len(text):
        field = _FIELD.match(text, at)
        if field is None or field[1].lower() in found:
            raise RefusedError(f"line {text.count(chr(10), 0, at) + 1} is no field, or one that was there already")
        found[field[1].lower()] = field[2]
        at = field.end()
    return found


def _files(listed: str) -> Iterator[dict[str, object]]:
    for line in listed.split("\n"):
        words = line.split()
        if not words:
            continue
        if len(words) != 3 or not re.fullmatch("[0-9]{1,15}", words[1], re.ASCII):
            raise RefusedError("Checksums-Sha256 is not as Debian's tools write it")
        yield {"name": words[2], "bytes": int(words[1]), "sha256": words[0]}


def _relations(fields: dict[str, str]) -> Iterator[str]:
    for names, prefix in ((_DEPENDS, ""), (_CONFLICTS, "Conflicts: ")):
        for name in names:
            for relation in fields.get(name.lower(), "").split(","):
                if words := relation.split():
                    yield prefix + " ".join(words)


# -- the job -----------------------------------------------------------------------------------------------------


def commands(dsc: str, source: Control) -> tuple[str, ...]:
    """Lines of a shell that build it as Debian's own builders do: path, locale, umask, all processors.

    The tree is on the job's disk, which has the room, and can be looked at there when the build has failed.
    """
    place = shlex.quote(source.directory())
    return (
        "umask 022",
        "export LC_ALL=C.UTF-8 DEB_BUILD_OPTIONS=parallel=$(nproc)",
        "mkdir -p /build build out",
        "mount --bind build /build",
        f"mkdir -p {PLACE}",
        # Whoever sends it may have to have it signed, which the server looks at: the machine has no keyring.
        f"dpkg-source --no-check --extract {shlex.quote(dsc)} {place}",
        f"(cd {place} && dpkg-buildpackage --no-sign --build=binary)",
        f"find {PLACE} -maxdepth 1 -type f -exec mv -t out {{}} +",
        f"rm -r {PLACE}",
    )


def run_sh(dsc: str, source: Control) -> str:
    """The program of its job."""
    return "#!/bin/sh\nset -eux\n" + "".join(f"{line}\n" for line in commands(dsc, source))


def space_bytes(sources_bytes: int) -> int:
    """What is asked for to build sources of that size in."""
    return _ROOM_BYTES + _ROOM_TIMES * sources_bytes


def wishes(source: Control, base: str, space: int) -> Wishes:
    """What its job asks for."""
    return Wishes(
        name=re.sub(r"[^A-Za-z0-9._-]", "-", source.source),
        base=base,
        space=Size(space),
        outputs=OUTPUTS,
        dependencies=Dependencies(packages=PACKAGES, build_depends=tuple(dict.fromkeys(source.relations))),
    )
