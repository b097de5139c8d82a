"""The initramfs: runjob, what it needs to run, and a few drivers, as the kernel unpacks them fastest."""

import io
import os
import re
import shutil
import tempfile
from pathlib import Path, PurePosixPath

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

from construir_ftp import process
from construir_ftp.errors import ConstruirError
from construir_ftp.image.rootdisk import RootDisk

_TIMEOUT_S = 60


def pack(exported: Path, target: Path, epoch_s: int) -> None:
    """The exported tree -> a newc cpio archive (the kernel's initramfs-buffer-format.rst), not compressed:
    under emulation that is slower. The same files make the same bytes: all are of the time `epoch_s`.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "root"
        shutil.copytree(exported, root)
        for directory in ("dev", "root", "sys"):
            (root / directory).mkdir()
        entries = sorted(root.rglob("*"))
        for path in entries:
            # Neither the umask nor the day is to be seen.
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            os.utime(path, (epoch_s, epoch_s))
        names = Path(name) / "names"
        names.write_text("".join(f"{path.relative_to(root)}\n" for path in entries))
        with names.open("rb") as listing, target.open("wb") as archive:
            argv = ["cpio", "--create", "--format=newc", "--owner=0:0", "--reproducible", "--quiet"]
            process.run(argv, stdin=listing, stdout=archive, cwd=root, timeout_s=_TIMEOUT_S)


# -- the files of an initramfs -----------------------------------------------------------------------------------

# Perl out of a root disk, for an initramfs whose init is runjob: the program, and all that it needs to start.

_PERL = "/usr/bin/perl"
# What runjob uses of Perl's own library.
_PRAGMA = "strict.pm"
_LOADER = re.compile(r"(/usr)?/lib[a-z0-9]*/[A-Za-z0-9_-]+\.so\.\d+|/lib/[A-Za-z0-9_-]+/[A-Za-z0-9_-]+\.so\.\d+")


def collect(disk: RootDisk) -> dict[str, bytes]:
    """Path -> content of Perl, the libraries that it and they need, the loader of all, and the pragma."""
    place = next((name for name in disk.names("/usr/lib") if disk.find(f"/usr/lib/{name}/perl-base/{_PRAGMA}")), None)
    if place is None or disk.find(_PERL) is None:
        raise ConstruirError(f"there is no Perl on the root disk ({_PERL}); every Debian has it")
    found = {f"/usr/lib/{place}/perl-base/{_PRAGMA}": disk.read(f"/usr/lib/{place}/perl-base/{_PRAGMA}")}
    waiting, loaders = [_PERL], set[str]()
    while waiting:
        path = waiting.pop()
        # The C library names the loader too, which is there already, from where the program names it.
        if path not in found and PurePosixPath(path).name not in loaders:
            found[path] = disk.read(path)
            own_loaders, libraries = needed(path, found[path])
            loaders |= {PurePosixPath(loader).name for loader in own_loaders}
            found |= {loader: disk.read(loader) for loader in own_loaders}
            waiting += [f"/lib/{place}/{name}" for name in libraries]
    return found


def needed(path: str, content: bytes) -> tuple[list[str], list[str]]:
    """The loader a program names, and the libraries that it or a library does (elf(5): PT_INTERP, DT_NEEDED)."""
    try:
        elf = ELFFile(io.BytesIO(content))
        parts = list(elf.iter_segments())
        loaders = [part.get_interp_name() for part in parts if isinstance(part, InterpSegment)]
        tags = [tag for part in parts if isinstance(part, DynamicSegment) for tag in part.iter_tags("DT_NEEDED")]
        # The library gives each kind of tag an attribute of its own.
        libraries = [PurePosixPath(tag.needed).name for tag in tags]  # type: ignore[attr-defined]
        return [name for name in loaders if _LOADER.fullmatch(name)], libraries
    except (ELFError, ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError) as error:
        raise ConstruirError(f"{path} on the root disk is no whole ELF file") from error
