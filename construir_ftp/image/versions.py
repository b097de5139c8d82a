"""The versions of base images: how one takes the place of another while machines run on both.

    <images>/<name>                        a symbolic link to the version that is live
    <images>/.versions/<name>/<digest>/    a version, whole; its files never change but for manifest.json
    <images>/.versions/<name>/.draft-*/    one that is being built; locked as long as it is

What makes a version live is one rename(2) of the link, so that a crash leaves the old one or the new one. A version in
use is locked (image.hold), and is not removed.
"""

import errno
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from construir_ftp import files, locks
from construir_ftp.errors import ConstruirError
from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage

_STORE = ".versions"
_LOCK, _DRAFT, _DOOMED = ".lock", ".draft-", ".doomed-"
_DIGEST_CHARACTERS = 16


def store(images: Path, name: str) -> Path:
    """The directory of a name's versions."""
    return images / _STORE / name


def stored_as(name: str, digest: str) -> Path:
    """Where a version of a name is below the images."""
    return Path(_STORE) / name / digest.removeprefix("sha256:")[:_DIGEST_CHARACTERS]


def every(images: Path, name: str) -> list[BaseImage]:
    """All versions of a name that can be read, the newest first."""
    found = []
    for path in store(images, name).glob(f"[!.]*/{baseimage.MANIFEST}"):
        with suppress(ConstruirError):
            found.append(baseimage.read(path.parent, name))
    return sorted(found, key=lambda version: version.manifest.created, reverse=True)


def names(images: Path) -> list[str]:
    """Every name that has a version, live or not."""
    return sorted(path.name for path in (images / _STORE).glob("[!.]*"))


def live(images: Path, name: str) -> Path:
    """Where the live version of a name is, should there be one."""
    return (images / name).resolve()


# -- making one ----------------------------------------------------------------------------------------------


@contextmanager
def draft(images: Path, name: str) -> Iterator[Path]:
    """A directory to build a version of `name` in; gone at the end, unless it was published."""
    baseimage.check_name(name)
    images.mkdir(parents=True, exist_ok=True)
    for place in (images / _STORE, store(images, name)):
        # Machines run as users of their own, which have to get to it, whatever the umask of whoever builds.
        with suppress(FileExistsError):
            place.mkdir()
            place.chmod(0o755)
    with locks.claimed(store(images, name), _DRAFT) as place:
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


def publish(images: Path, name: str, finished: Path, approve: Callable[[BaseImage], None]) -> BaseImage:
    """Make a finished draft the live version of `name`; on return that is on stable storage.

    `approve` is called with it before, unless it is what is live already, and raises what is to be raised if it may not
    become so: then it is removed, and nothing has changed.
    """
    version = images.resolve() / stored_as(name, baseimage.read(finished, name).manifest.digest())
    with locks.alone(version.parent / _LOCK):
        is_new = _keep(finished, version, name)
        base = baseimage.read(version, name)
        try:
            with baseimage.holding(base):
                if live(images, name) != version:
                    approve(base)
                    _point(images.resolve() / name, version)
        except BaseException:
            if is_new:
                discard(version)
            raise
    return base


def keep(images: Path, name: str, finished: Path) -> BaseImage:
    """Have a finished draft among the versions of a name, whichever is live; on return that is on stable storage."""
    version = images.resolve() / stored_as(name, baseimage.read(finished, name).manifest.digest())
    with locks.alone(version.parent / _LOCK):
        _keep(finished, version, name)
        return baseimage.read(version, name)


def _keep(finished: Path, version: Path, name: str) -> bool:
    """Give a draft its place among the versions; false if it was there, and only its manifest is new."""
    finished.chmod(0o755)
    for part in finished.rglob("*"):
        part.chmod(0o755 if part.is_dir() else 0o444 | part.stat().st_mode & 0o111)
        files.fsync(part)
    files.fsync(finished)
    if version.exists():
        try:
            baseimage.verify(baseimage.read(version, name))
        except ConstruirError:
            shutil.rmtree(_put_aside(version))
        else:
            files.replace_durably(version / baseimage.MANIFEST, (finished / baseimage.MANIFEST).read_bytes(), 0o444)
            return False
    finished.rename(version)
    files.fsync(version.parent)
    return True


def _point(link: Path, version: Path) -> None:
    if link.is_dir() and not link.is_symlink():
        # As images were kept until there were versions. A crash in between leaves no image, which the next build mends.
        link.rename(version.with_name(f"{_DOOMED}{secrets.token_hex(4)}"))
    files.sweep_drafts(link.parent, link.name)
    with files.draft(link) as fresh:
        fresh.symlink_to(version.relative_to(link.parent))
        fresh.replace(link)
    files.fsync(link.parent)


# -- removing one ----------------------------------------------------------------------------------------------


def discard(version: Path, link: Path | None = None) -> bool:
    """Remove a version, a draft or the rest of one, unless somebody uses it; returns whether it is gone.

    `link` is the name that it is live under, which goes first.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(_taken(version))
        except BlockingIOError:
            return False
        except FileNotFoundError:
            pass  # without a root disk it is of no use to anybody
        if link is not None:
            link.unlink()
        doomed = _put_aside(version)
    shutil.rmtree(doomed)
    return True


@contextmanager
def _taken(version: Path) -> Iterator[None]:
    """Keep others from using a version, or a draft. Raises BlockingIOError where somebody does."""
    if _is_unfinished(version):
        with locks.abandoned(version):
            yield
    elif is_held(version):
        raise BlockingIOError(errno.EAGAIN, "in use", str(version))
    else:
        root = version / baseimage.ROOT
        root.chmod(0o644)  # who locks it has to have it open for writing, whoever they are
        with root.open("r+b") as file:
            locks.take(file.fileno(), wait=False)
            yield


def is_held(version: Path) -> bool:
    """Whether somebody uses a version, or builds a draft."""
    return locks.is_claimed(version) if _is_unfinished(version) else locks.is_held(version / baseimage.ROOT)


def _is_unfinished(version: Path) -> bool:
    return version.name.startswith(".")


def _put_aside(version: Path) -> Path:
    # Out of the way in one step: a version is there whole, or not at all. It is deleted when it is no longer open: on a
    # network file system what is open keeps its directory.
    doomed = version.with_name(f"{_DOOMED}{secrets.token_hex(4)}")
    version.rename(doomed)
    baseimage.proof(version).unlink(missing_ok=True)
    return doomed


def sweep(images: Path) -> None:
    """Remove the locks that interrupted builds and removals left."""
    for place in _stores(images):
        locks.sweep(place, _DRAFT)


def leftovers(images: Path) -> list[Path]:
    """What interrupted builds and removals left."""
    stores = _stores(images)
    return sorted(path for prefix in (_DRAFT, _DOOMED) for place in stores for path in locks.directories(place, prefix))


def _stores(images: Path) -> list[Path]:
    return list((images / _STORE).iterdir()) if (images / _STORE).is_dir() else []
