"""Whether the root of a job's machine has what the program of the job needs, by its base image.

What packages, layers and results bring is not known here, so a job that asks for any is believed.
"""

import stat
from pathlib import Path

from construir_ftp.diskimage import paths
from construir_ftp.diskimage.extfs import Image
from construir_ftp.diskimage.paths import Elsewhere
from construir_ftp.errors import ConstruirError, RefusedError
from construir_ftp.image import baseimage
from construir_ftp.intake.verdict import Verdict
from construir_ftp.jobs.request import Dependencies, Wishes

# As runjob has it, but for /job/bin, where the judge looks.
_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
# What is mounted over the root.
_COVERED = (b"job", b"deps", b"dev", b"proc", b"sys", b"run", b"tmp")
_SAID = {"interpreter": "is run by", "loader": "is run by the loader", "target": "is a link to"}


def check(found: Verdict, wanted: Wishes, images: Path, default_base: str) -> None:
    """Raise RefusedError if the machine would lack what the job's program needs, as far as that can be told."""
    if not found.needs or not found.needed_as or wanted.dependencies != Dependencies():
        return
    try:
        base = baseimage.find(images, wanted.base_name(default_base))
        with base.root.open("rb") as root:
            if _has(Image(root), found.needs):
                return
    except (ConstruirError, OSError):
        return
    name = wanted.run.removeprefix("./")
    if found.is_beside:
        raise RefusedError(
            f"{name} {_SAID[found.needed_as]} {found.needs}; the image is mounted at /job, so that its file is"
            f" /job{found.needs}; name it so, and make the image anew"
        )
    raise RefusedError(
        f"{name} {_SAID[found.needed_as]} {found.needs}, which neither the image nor the base"
        f" image {base.name} has; name its Debian package among the packages in construir.toml"
    )


def _has(root: Image, needed: str) -> bool:
    candidates = [needed] if needed.startswith("/") else [f"{place}/{needed}" for place in _PATH]
    return any(_is_program(root, candidate.encode()) for candidate in candidates)


def _is_program(root: Image, path: bytes) -> bool:
    if paths.parts(path)[:1] and paths.parts(path)[0] in _COVERED:
        return True
    found = paths.follow(root, path, mount=())
    if found is None or isinstance(found, Elsewhere):
        return False
    return found.kind == stat.S_IFREG and bool(found.mode & 0o111)
