"""A signed Debian source upload becomes a job: what dput sends, a .dsc with its files and last the .changes.

The files wait in incoming/ like others that start nothing (incoming). The .changes says which of them belong together.
A job image is made of them, with a program that builds them, and it is judged like any other upload.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from construir_ftp import files, process
from construir_ftp.diskimage import codec
from construir_ftp.errors import RefusedError
from construir_ftp.image import baseimage
from construir_ftp.intake import admission, control_files
from construir_ftp.intake.incoming import Partial, Partials
from construir_ftp.jobs import names, request, source_package
from construir_ftp.jobs.disk_space import Room
from construir_ftp.jobs.reply import Reply
from construir_ftp.jobs.result import Signer
from construir_ftp.jobs.source_package import Control, File
from construir_ftp.layers.resolver import Offer

_CODEC = "zstd"
_TIMEOUT_S = 3600.0
# A file system beside its files: inodes, and what else a small one has.
_SPARE_BYTES, _SPARE_PART = 4 * 2**20, 32
_AGAIN = "build the upload with: dpkg-buildpackage -S -sa"
# What a distribution may have behind the name of a suite: the same archive is built on.
_POCKETS = ("", "-security", "-updates", "-proposed-updates")
_ALIASES = {"sid": {"unstable"}}
_RUN = "run.sh"


class Made(NamedTuple):
    """The image of a job, the files that went into it, and who has signed the .changes and the .dsc."""

    image: Path
    parts: tuple[Partial, ...]
    signers: tuple[Signer, ...]


def make_image(changes: Partial, partials: Partials, offer: Offer, keyring: Path | None, room: Room) -> Made:
    """The image of the job that a .changes asks for, beside it.

    Raises RefusedError, which says what is wrong in one line; ConstruirError, OSError.
    """
    with _naming(changes.name):
        listed, uploader = control_files.read(changes.job.upload, keyring)
        base = _base(listed, offer)
    with ExitStack() as held:
        parts = {file.name: held.enter_context(_taken(file, changes, partials)) for file in _needed(listed)}
        dsc = next(name for name in parts if name.endswith(".dsc"))
        for file in _needed(listed):
            _check(parts[file.name], file, changes.name)
        with _naming(dsc):
            source, signer = control_files.read(parts[dsc].job.upload, keyring)
            _agree(listed, source)
        for file in source.files:
            if file.name not in parts:
                parts[file.name] = held.enter_context(_taken(file, parts[dsc], partials))
            _check(parts[file.name], file, dsc)
        asked = _Asked(source, dsc, base, {name: part.job.upload for name, part in parts.items()})
        if room.for_more() < 2 * asked.image_bytes():
            raise admission.no_room()
        named = {changes.name: uploader, dsc: signer}
        signers = tuple(msgspec.structs.replace(each, file=name) for name, each in named.items())
        return Made(_packed(asked, offer.max_image_bytes, changes.job.path), tuple(parts.values()), signers)


def in_its_words(refused: Reply) -> Reply:
    """A refusal of what the job asks for, in the words of who has sent a source."""
    ours = f"{request.FILE}: dependencies.build_depends"
    return refused._replace(text=refused.text.replace(ours, "its build dependencies"))


# -- what belongs to it ------------------------------------------------------------------------------------------


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Within, a refusal is one of the file `name`."""
    try:
        yield
    except RefusedError as refused:
        raise RefusedError(f"{name}: {refused}", refused.reply) from refused


def _needed(listed: Control) -> list[File]:
    """The files of an upload of the source alone. Raises RefusedError for any other."""
    if listed.architecture.split() != ["source"]:
        raise RefusedError(f"not an upload of the source alone, but of: {listed.architecture or 'nothing'}; {_AGAIN}")
    descriptions = [file.name for file in listed.files if file.name.endswith(".dsc")]
    if len(descriptions) != 1 or not all(names.is_part(file.name) for file in listed.files):
        raise RefusedError(f"it names no .dsc, more than one, or what is no part of a source; {_AGAIN}")
    return list(listed.files)


def _agree(listed: Control, source: Control) -> None:
    if not all(names.is_part(file.name) for file in source.files):
        raise RefusedError("it names what is no part of a source")
    if (listed.source, listed.version) != (source.source, source.version):
        raise RefusedError(f"it is of {source.source} {source.version}, not of {listed.source} {listed.version}")


@contextmanager
def _taken(file: File, by: Partial, partials: Partials) -> Iterator[Partial]:
    """Have a file that was sent; within, nobody else changes it. Raises RefusedError where it was not sent whole."""
    part = partials.find(by.contributor, file.name)
    if part is None or not part.is_whole:
        missing = "was not sent whole" if part else "was not sent"
        cure = "send it, and then the .changes again" if by.name.endswith(".changes") else _AGAIN
        raise RefusedError(f"{file.name}, which {by.name} names, {missing}; {cure}")
    if not partials.take(part):
        raise RefusedError(f"{file.name} is being sent, or used, at the moment; try again later", 450)
    try:
        yield part
    finally:
        partials.give_back(part)


def _check(part: Partial, file: File, by: str) -> None:
    with part.job.upload.open("rb") as opened:
        if os.fstat(opened.fileno()).st_size != file.bytes:
            raise RefusedError(f"{file.name} has another size than {by} says ({file.bytes} bytes); send both again")
        if hashlib.file_digest(opened, "sha256").hexdigest() != file.sha256:
            raise RefusedError(f"{file.name} has another SHA-256 than {by} says; send both again")


def _base(listed: Control, offer: Offer) -> str:
    """The base image of its distribution, the default one if it is that. Raises RefusedError where there is none."""
    suites = _suites(offer)
    for suite, name in suites.items():
        if listed.distribution in {f"{suite}{pocket}" for pocket in _POCKETS} | _ALIASES.get(suite, set()):
            return name
    there = ", ".join(sorted(suites)) or "none"
    raise RefusedError(f"distribution {listed.distribution or 'none'}: no base image here is of it; there are: {there}")


def _suites(offer: Offer) -> dict[str, str]:
    """The base images that jobs can have, by their suites."""
    runnable = offer.terms().bases
    bases = [base for base in baseimage.every(offer.images) if base.name in runnable]
    found = {base.manifest.suite: base.name for base in reversed(bases)}
    return found | {base.manifest.suite: base.name for base in bases if base.name == offer.default_base}


# -- the job -----------------------------------------------------------------------------------------------------


class _Asked(NamedTuple):
    """What is to be built, on which base image, and all of its files by their names."""

    source: Control
    dsc: str
    base: str
    files: dict[str, Path]

    def sources_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files.values())

    def image_bytes(self) -> int:
        return self.sources_bytes() * (_SPARE_PART + 1) // _SPARE_PART + _SPARE_BYTES

    def wishes(self, most_bytes: int) -> str:
        space = min(source_package.space_bytes(self.sources_bytes()), max(0, most_bytes - self.image_bytes()))
        return request.render(source_package.wishes(self.source, self.base, space))


def _packed(asked: _Asked, most_bytes: int, place: Path) -> Path:
    """A job image in `place`; what it was made by is gone."""
    tree, image, packed = place / "tree", place / "image", place / "packed"
    try:
        _fill(tree, asked, most_bytes)
        options = ["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-E", "root_owner=0:0"]
        process.run(["mke2fs", *options, "-d", tree, image, f"{asked.image_bytes() >> 10}K"], timeout_s=_TIMEOUT_S)
        codec.pack(_CODEC, image, packed, _TIMEOUT_S)
        return packed
    finally:
        for made in (tree, image):
            if made.exists():
                files.remove(made)


def _fill(tree: Path, asked: _Asked, most_bytes: int) -> None:
    tree.mkdir()
    for name, path in asked.files.items():
        (tree / name).hardlink_to(path)
    (tree / request.FILE).write_text(asked.wishes(most_bytes))
    (tree / _RUN).write_text(source_package.run_sh(asked.dsc, asked.source))
    (tree / _RUN).chmod(0o755)
