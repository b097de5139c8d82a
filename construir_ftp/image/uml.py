"""The user-mode kernel of a base image: what its machines are run with where there is no KVM.

Debian's package of it, and the few programs that start it in a jail, come from an archive whose signatures apt has
checked. Only the files that base-image/uml/ names become part of the image, as a tree that the jail sees as /usr:
nothing of the host's is executed in there. Which release it is from, and why: docs/machines.md.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from construir_ftp import process
from construir_ftp.errors import ConstruirError
from construir_ftp.image import baseimage, initramfs, recipe

ARCHITECTURE = "amd64"
# Where things are in the tree: what starts the kernel, the kernel itself, its modules, its initramfs.
LAUNCH, KERNEL = PurePosixPath("usr/lib/uml/launch"), PurePosixPath("usr/bin/linux.uml")
MODULES, INITRD = PurePosixPath("usr/lib/uml/modules"), PurePosixPath("usr/lib/uml/initrd.img")
_LIBRARIES = PurePosixPath("usr/lib/x86_64-linux-gnu")
_GUEST = "Uml.pm"
_TIMEOUT_S = 1800
# Of base-image/: what starts the kernel, and what has its disks and lines for runjob.
_TALKERS = ("uml/launch", "uml/Uml.pm")


def fetch(wanted: recipe.Recipe, place: Path, env: dict[str, str]) -> None:
    """Have mmdebstrap(1) download the packages and unpack them into `place`; none is installed, no script is run.

    Raises CommandError where they can't be had, or their signatures don't hold.
    """
    mode = "root" if os.geteuid() == 0 else "unshare"
    argv: list[str | Path] = ["mmdebstrap", f"--mode={mode}", "--variant=extract", "--format=directory", "--quiet"]
    argv += [f"--architectures={ARCHITECTURE}", f"--include={','.join(recipe.lines('uml/packages'))}"]
    argv += [f"--keyring={wanted.keyring}"] if wanted.keyring else []
    suite, _, source = wanted.uml.partition(" ")
    process.run([*argv, suite, place, *([source] if source else [])], timeout_s=_TIMEOUT_S, env=env)


def add(fetched: Path, draft: Path, epoch_s: int) -> str:
    """Make the tree of what was fetched, in the version `draft`, which has its initramfs already.

    Returns the kernel's release. The same packages make the same bytes. Raises ConstruirError where a file is missing.
    """
    target = draft / baseimage.UML
    for line in recipe.lines("uml/files"):
        source, *name = line.split()
        _take(fetched, PurePosixPath(source), target / (name[0] if name else source))
    release = _take_modules(fetched, target)
    launch = target / LAUNCH
    shutil.copyfile(recipe.source() / "uml" / "launch", launch)
    launch.chmod(0o755)
    _extend_initramfs(draft / baseimage.INITRD, target / INITRD, epoch_s)
    return release


def is_understood(ingredients: Mapping[str, str]) -> bool:
    """Whether what talks to this program in an image is what this program has; `ingredients` are the manifest's.

    An older one would be waited for in vain. Raises ConstruirError where base-image/ is missing from the installation.
    """
    return all(ingredients.get(name) in recipe.digests(name) for name in _TALKERS)


def _take(fetched: Path, source: PurePosixPath, target: Path) -> None:
    """A file, and the libraries and the loader that it needs, and they."""
    content = _content(fetched / source)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    target.chmod(0o755 if (fetched / source).stat().st_mode & 0o100 else 0o644)
    if not content.startswith(b"\x7fELF"):
        return
    top = _top(target)
    loaders, libraries = initramfs.needed(str(source), content)
    paths = [PurePosixPath("usr", loader.lstrip("/").removeprefix("usr/")) for loader in loaders]
    # The C library names the loader too, which is where programs name it.
    paths += [_LIBRARIES / name for name in libraries if not name.startswith("ld-linux")]
    for path in paths:
        if not (top / path).exists():
            _take(fetched, path, top / path)


def _top(path: Path) -> Path:
    return next(parent.parent for parent in path.parents if parent.name == "usr")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ConstruirError(f"the packages of the user-mode kernel have no {'/'.join(path.parts[-3:])}") from error


def _take_modules(fetched: Path, target: Path) -> str:
    """The modules that are named and those they need, and modprobe's own files; returns the kernel's release."""
    (place,) = (fetched / MODULES).iterdir()
    kept = target / MODULES / place.name
    kept.mkdir(parents=True)
    for index in place.glob("modules.*"):
        shutil.copyfile(index, kept / index.name)
    needs = dict(line.split(":", 1) for line in (place / "modules.dep").read_text().splitlines())
    paths = {PurePosixPath(path).stem: path for path in needs}
    for name in recipe.lines("uml/modules"):
        if name not in paths:
            raise ConstruirError(f"the user-mode kernel {place.name} has no module {name}; see base-image/uml/modules")
        for path in (paths[name], *needs[paths[name]].split()):
            (kept / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(place / path, kept / path)
    return place.name


def _extend_initramfs(initrd: Path, target: Path, epoch_s: int) -> None:
    """The image's own initramfs and, after it, what runjob does otherwise in there (the kernel's
    initramfs-buffer-format.rst: archives may follow each other).
    """
    own = target.with_name("own")
    own.mkdir()
    shutil.copyfile(recipe.source() / "uml" / _GUEST, own / _GUEST)
    initramfs.pack(own, target, epoch_s)
    target.write_bytes(initrd.read_bytes() + target.read_bytes())
    shutil.rmtree(own)
