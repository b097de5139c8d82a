"""Build a base image: mmdebstrap makes the tree, mke2fs the disk; nothing is mounted, and root is not needed.

Everything the image is made from is in base-image/; this only puts it together. The same recipe, archive and
SOURCE_DATE_EPOCH make the same bytes: on any day, as root and as an ordinary user. Without that variable the
image's date is that of its newest package, which changes when there is a newer one and not from day to day.
"""

import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from construir_ftp import files, locks, process
from construir_ftp.diskimage import extfs
from construir_ftp.errors import CommandError, ConstruirError, UsageError
from construir_ftp.image import baseimage, emulation, gc, initramfs, kernel, past, recipe, uml, versions
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.image.past import Past
from construir_ftp.image.recipe import Recipe

_TIMEOUT_S = 3600
# What a build tells of, one after the other; the last one only of an image that takes the place of another.
PACKAGES, DISK, BOOT, MEMORY, TRIAL = STEPS = (
    "installing Debian's packages",
    "making the root disk",
    "packing kernel and initramfs",
    "finding out how much memory a machine of it needs",
    "trying it with a job",
)
Tell = Callable[[str], None]


def steps_to_take(*, is_new: bool) -> int:
    """How many of STEPS there will be of an image; nobody's jobs have run on one that is new."""
    return len(STEPS) - is_new


def _quietly(_step: str) -> None:
    """For whoever doesn't watch."""


_WORKPLACE = Path("/var/tmp"), "construir-image-"  # noqa: S108 - not /tmp, which is often memory; names nobody can know


def is_current(images: Path, wanted: Recipe) -> bool:
    """Whether an image of that name is there and was made from the same recipe."""
    try:
        return baseimage.find(images, wanted.name).manifest.recipe == wanted.digest()
    except ConstruirError:
        return False


def build(
    images: Path,
    wanted: Recipe,
    approve: Callable[[BaseImage], None] = lambda base: None,
    measure: Callable[[BaseImage], int] = lambda base: 0,
    tell: Tell = _quietly,
    kept: Collection[str] = (),
) -> BaseImage:
    """Build the image and make it the live one of its name. Raises ConstruirError; then nothing has changed.

    Of older versions the one before stays, and those whose digests are in `kept`.

    `approve` has a look at it before, if it is to take the place of another; see versions.publish. `measure` says how
    many bytes of memory a machine of it needs. `tell` is called with each of STEPS as it begins.
    """

    def try_out(base: BaseImage) -> None:
        tell(TRIAL)
        approve(base)

    with versions.draft(images, wanted.name) as draft:
        _fill(draft, wanted, tell)
        tell(MEMORY)
        baseimage.note_least_memory(draft, wanted.name, measure)
        is_first = wanted.name not in baseimage.names(images)
        base = versions.publish(images, wanted.name, draft, (lambda base: None) if is_first else try_out)
    baseimage.note_proof(base)  # its digests were taken a moment ago
    gc.trim(images, wanted.name, kept)
    return base


def build_again(images: Path, digest: str, was: Past, wanted: Recipe, tell: Tell = _quietly) -> BaseImage:
    """Build an image as it was, and keep it as a version of its name that is not live; see past.

    Raises ConstruirError, with nothing changed, where that can't be had, or has another digest.
    """
    with versions.draft(images, wanted.name) as draft:
        _fill(draft, wanted, tell, was)
        manifest = baseimage.read(draft, wanted.name).manifest
        if manifest.digest() != digest:
            raise past.difference(was, manifest, digest)
        base = versions.keep(images, wanted.name, draft)
    baseimage.note_proof(base)
    return base


def _fill(draft: Path, wanted: Recipe, tell: Tell, was: Past | None = None) -> None:
    with _workplace() as work:
        exported = work / "out"
        _export(work, exported, wanted, tell, was)
        tell(BOOT)
        epoch_s = int((exported / "date").read_text())
        kernel.extract(exported / "vmlinuz", draft / baseimage.KERNEL)
        initramfs.pack(exported / "initramfs", draft / baseimage.INITRD, epoch_s)
        files.take(exported / baseimage.ROOT, 0, wanted.root_bytes, draft / baseimage.ROOT)
        with (draft / baseimage.ROOT).open("r+b") as root:
            extfs.Image(root).settle_times(epoch_s)
        release = ""
        if wanted.uml:
            uml.fetch(wanted, work / "uml", process.environment(HOME=str(exported), TMPDIR=str(exported)))
            release = uml.add(work / "uml", draft, epoch_s)
        _write_manifest(exported, draft, wanted, epoch_s, release)


@contextmanager
def _workplace() -> Iterator[Path]:
    # An ordinary user's build runs under subordinate ids (subuid(5)), which own what they make: they have to be able
    # to reach this directory, to write to out/, and only they can remove what is in root/.
    place, prefix = _WORKPLACE
    for abandoned in locks.directories(place, prefix):
        with suppress(OSError), locks.abandoned(abandoned):
            _clear(abandoned)
    locks.sweep(place, prefix)
    with locks.claimed(place, prefix) as work:
        try:
            work.chmod(0o711)
            (work / "out").mkdir()
            (work / "out").chmod(0o777)
            yield work
        finally:
            _clear(work)


def _clear(work: Path) -> None:
    # What the builder made only the builder can remove; the directories around it are ours.
    emptied = [place for place in (work / "root", work / "uml", work / "out") if place.exists()]
    if emptied:  # else find(1) would take the directory that it is started in
        with suppress(CommandError):
            process.run([*_as_builder(), "find", *emptied, "-mindepth", "1", "-delete"], timeout_s=_TIMEOUT_S)
    shutil.rmtree(work, ignore_errors=True)


def _as_builder() -> list[str | Path]:
    """What to put before a command so that it sees the tree's files with the owners they will have."""
    return [] if os.geteuid() == 0 else ["mmdebstrap", "--unshare-helper"]


def _epoch(was: Past | None) -> str:
    """The image's date in seconds since 1970, where it is not that of its newest package. Raises UsageError."""
    told = os.environ.get("SOURCE_DATE_EPOCH", "")
    if was is not None and was.date is not None:
        told = str(int(was.date.timestamp()))
    if told and not told.isdecimal():
        raise UsageError(f"SOURCE_DATE_EPOCH is '{told}'; expected seconds since 1970, as date +%s prints them")
    return told


def _export(work: Path, out: Path, wanted: Recipe, tell: Tell, was: Past | None) -> None:
    # No initrd: ours is made below.
    env = process.environment(INITRD="No", HOME=str(out), TMPDIR=str(out))
    root, told = work / "root", _epoch(was)
    options = past.options(was, work) if was else []
    # Before the packages are there their date is not known. What scripts note of it is as reproducible with any other.
    tell(PACKAGES)
    process.run(
        recipe.mmdebstrap_argv(root, wanted, options),
        timeout_s=_TIMEOUT_S,
        env=env | {"SOURCE_DATE_EPOCH": told or "1"},
    )
    tell(DISK)
    builder = emulation.prefix(wanted.architecture, recipe.source() / "emulate") or _as_builder()
    process.run(
        [*builder, recipe.source() / "export", root, out, str(int(wanted.root_bytes))],
        timeout_s=_TIMEOUT_S,
        env=env | ({"SOURCE_DATE_EPOCH": told} if told else {}),
    )


def _write_manifest(exported: Path, draft: Path, wanted: Recipe, epoch_s: int, uml_release: str) -> None:
    manifest = baseimage.Manifest(
        name=wanted.name,
        suite=wanted.suite,
        architecture=wanted.architecture,
        include=sorted(wanted.include),
        recipe=wanted.digest(),
        kernel_release=(exported / "release").read_text().strip(),
        created=datetime.now(UTC),
        parts={name: baseimage.measure(draft / name) for name in baseimage.parts_in(draft)},
        packages=dict(line.split("=", 1) for line in (exported / "packages").read_text().splitlines()),
        date=datetime.fromtimestamp(epoch_s, UTC),
        snapshot=wanted.snapshot,
        sources=(exported / "sources").read_text().splitlines(),
        ingredients=recipe.ingredients(bool(wanted.uml)),
        uml=uml_release,
        uml_source=wanted.uml,
    )
    (draft / baseimage.MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
