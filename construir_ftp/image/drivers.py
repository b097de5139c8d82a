"""Drivers out of a root disk, for an initramfs: those asked for, and those they need, in the order to load them.

Sources: depmod(8), modules.dep and modules.builtin.
"""

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from construir_ftp.errors import ConstruirError
from construir_ftp.image.inflate import inflate
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
    found: dict[str, bytes] = {}
    for name in names:
        for path in _with_needs(paths.get(name), needs):
            file = f"{_name(path)}.ko"
            if file not in found:
                found[file] = _unpacked(path, root.read(f"{place}/{path}"))
    return found


def _parse(text: str) -> Iterable[tuple[str, list[str]]]:
    for line in text.splitlines():
        path, _, needed = line.partition(":")
        yield path.strip(), needed.split()


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
