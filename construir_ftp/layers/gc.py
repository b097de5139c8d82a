"""Which layers go, and what an interrupted maker of layers left.

While all layers together are above their limit, the one not used for longest goes; never one that a job that waits
or runs asks for, nor one that another layer which stays, or is being made, lies on.

    .draft-*  .outgoing-*  .lock-*    beside the layers: older than a day, and locks only where nobody holds them;
                                      the next one who makes a layer deletes drafts of the killed at once
    .archives/*/archives/*.deb        fetched more than 30 days ago
"""

import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from construir_ftp import files, locks
from construir_ftp.jobs import references
from construir_ftp.jobs.request import Dependencies
from construir_ftp.jobs.spool import Spool
from construir_ftp.layers.store import ARCHIVES, Layer, Store
from construir_ftp.units import Size

log = logging.getLogger(__name__)

Removal = tuple[str, str]

_LEFTOVERS = (".draft-*", ".outgoing-*", ".lock-*")
_LEFTOVER_S = 86400.0
_PACKAGE_FILE_S = 30 * 86400.0


def collect(spool: Spool, max_total: Size, now: datetime, dry_run: bool = False) -> list[Removal]:
    """Delete what is to go, or with `dry_run` nothing; returns names below layers/, and why.

    What can't be deleted, or has come into use meanwhile, is left out; it stops nothing else.
    """
    store = Store(spool.state("layers"))
    removals = []
    for layer, reason in list(_surplus(store, references.dependencies(spool), max_total)):
        if dry_run or _removed(store, layer):
            removals.append((layer.name, reason))
    for path, reason in _leftovers(store.path, now.timestamp()):
        if dry_run or _deleted(path):
            removals.append((str(path.relative_to(store.path)), reason))
    for name, reason in [] if dry_run else removals:
        log.info("deleted %s: %s", name, reason)
    return removals


def _surplus(store: Store, asked: list[Dependencies], max_total: Size) -> Iterator[tuple[Layer, str]]:
    layers = {layer.name: layer for layer in store.every()}
    for layer in list(layers.values()):
        if gone := [name for name in layer.manifest.under if name not in layers]:
            yield layers.pop(layer.name), f"it lies on {gone[0]}, which is gone"
    kept = _kept(store, list(layers.values()), asked)
    total_bytes = sum(layer.manifest.bytes for layer in layers.values())
    for layer in _by_use(list(layers.values())):
        if total_bytes <= max_total:
            return
        if layer.name not in kept:
            yield layer, f"layers take more than {max_total >> 20} MiB"
            total_bytes -= layer.manifest.bytes


def _by_use(layers: list[Layer]) -> list[Layer]:
    """Not used for longest first; a layer is used whenever one is that lies on it, and goes after that one."""
    used = {layer.name: layer.last_used() for layer in layers}
    for layer in layers:
        for name in layer.manifest.under:
            used[name] = max(used[name], used[layer.name])
    return sorted(layers, key=lambda layer: (used[layer.name], -len(layer.manifest.under)))


def _kept(store: Store, layers: list[Layer], asked: list[Dependencies]) -> set[str]:
    """The names of layers that jobs ask for, and of those that they lie on."""
    named = [found for needs in asked for name in needs.layers if (found := store.find(name))]
    wanted = [{package.partition("=")[0] for package in needs.packages} for needs in asked if needs.packages]
    holding = [layer for layer in layers if any(_holds(layer, names, layers) for names in wanted)]
    return {name for layer in [*named, *holding] for name in [layer.name, *layer.manifest.under]}


def _holds(layer: Layer, wanted: set[str], layers: list[Layer]) -> bool:
    """Whether it can be the one made for these packages; those that no layer on its base has are in the base."""
    on_the_same = (other for other in layers if other.manifest.base == layer.manifest.base)
    known = wanted.intersection(name for other in on_the_same for name in other.manifest.packages())
    return bool(known) and known <= layer.manifest.packages()


def _removed(store: Store, layer: Layer) -> bool:
    try:
        return store.remove(layer)
    except OSError as error:
        log.error("layer %s can't be deleted: %s; see to its permissions", layer.name, error)  # noqa: TRY400 - no bug of ours
        return False


def _leftovers(place: Path, now_s: float) -> Iterator[tuple[Path, str]]:
    for pattern in _LEFTOVERS:
        for path in place.glob(pattern):
            is_held = locks.is_held if path.is_file() else locks.is_claimed
            if path.lstat().st_mtime < now_s - _LEFTOVER_S and not is_held(path):
                yield path, "left by an interrupted command"
    for path in place.glob(f"{ARCHIVES}/*/archives/*.deb"):
        # apt gives a file the time it was made at; it was changed last when it was put here.
        if path.lstat().st_ctime < now_s - _PACKAGE_FILE_S:
            yield path, "a package file fetched more than 30 days ago"


def _deleted(path: Path) -> bool:
    try:
        if path.match(".lock-*") or path.suffix == ".lock":
            _remove_lock(path)
        else:
            files.remove(path)
    except OSError as error:
        log.error("%s can't be deleted: %s; see to its permissions", path.name, error)  # noqa: TRY400 - no bug of ours
        return False
    return True


def _remove_lock(path: Path) -> None:
    with suppress(BlockingIOError), locks.held(path, wait=False):
        path.unlink()
