"""Drivers out of a root disk, for an initramfs: those asked for, and those they need, in the order to load them.

Sources: depmod(8), modules.dep(5); modprobe.d(5) for softdep: what a driver asks the kernel for by the name of what it
does, such as ext4, which computes no check sum by itself.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from construir_ftp.diskimage.codec import inflate
from construir_ftp.errors import ConstruirError
from construir_ftp.image.rootdisk import RootDisk

_UNPACK = {".xz": "xz", ".zst": "zstd", ".gz": "gzip"}


def collect(root: RootDisk, release: str, names: Iterable[str]) -> dict[str, bytes]:
    """File name (such as virtio_blk.ko) -> content, in the order in which the kernel takes them.

    What the kernel has built in, or its package has not, is left out.
    """
    place = f"/lib/modules/{release}"
    needs = dict(_parse(root.text(f"{place}/modules.dep")))
    if not needs:
        raise ConstruirError(f"there are no drivers in {place} on the root disk")
    paths = {_name(path): path for path in needs}
    before = _asked_for(root.text(f"{place}/modules.softdep"), root.text(f"{place}/modules.alias"))
    found: dict[str, bytes] = {}
    for path in _in_order(names, paths, needs, before):
        file = f"{_name(path)}.ko"
        if file not in found:
            found[file] = _unpacked(path, root.read(f"{place}/{path}"))
    return found


def _parse(text: str) -> Iterable[tuple[str, list[str]]]:
    for line in text.splitlines():
        path, _, needed = line.partition(":")
        yield path.strip(), needed.split()


def _asked_for(softdep: str, alias: str) -> dict[str, list[str]]:
    """Driver -> the drivers it wants to be loaded before it, of those that go by a name all."""
    known: dict[str, list[str]] = {}
    for line in alias.splitlines():
        _, name, driver = [*line.split(), "", "", ""][:3]
        known.setdefault(name, []).append(_name(driver))
    wanted = {}
    for line in softdep.splitlines():
        _, driver, *words = [*line.split(), "", ""]
        before = words[words.index("pre:") + 1 :] if "pre:" in words else []
        names = before[: before.index("post:")] if "post:" in before else before
        wanted[_name(driver)] = [each for name in names if name for each in known.get(name, [_name(name)])]
    return wanted


def _in_order(
    names: Iterable[str], paths: Mapping[str, str], needs: Mapping[str, list[str]], before: Mapping[str, list[str]]
) -> Iterator[str]:
    """The paths of drivers and of all they need, those first; some come more than once."""
    for name in names:
        all_of_it = _with_needs(paths.get(name), needs)
        for driver in all_of_it:
            for other in before.get(_name(driver), []):
                yield from _with_needs(paths.get(other), needs)
        yield from all_of_it


def _with_needs(path: str | None, needs: Mapping[str, list[str]]) -> list[str]:
    # A line names all that a driver needs, the last one first.
    return [*reversed(needs[path]), path] if path is not None else []


def _name(path: str) -> str:
    # A kernel takes - for _ in the name of a driver.
    return PurePosixPath(path).name.partition(".ko")[0].replace("-", "_")


def _unpacked(path: str, data: bytes) -> bytes:
    """The driver as the kernel takes it. Since Debian 13 they are compressed, which that kernel is not made to undo."""
    tool = _UNPACK.get(PurePosixPath(path).suffix)
    return inflate(tool, data) if tool else data
