"""Where layers are kept: a directory for each, in the spool's layers/, complete from the moment it has its name.

    layers/<name>/layer.sqfs   squashfs, laid over a machine's root
    layers/<name>/layer.json   what is in it (LayerManifest); its time of change is that of the last use

A published layer is called NAME@<first digits of its sha256>; NAME itself holds the same two files as the version that
was published last. A layer never changes; a name that begins with a dot is a draft, a lock or the packages' archives.
Nothing here reads a layer's content.
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from construir_ftp import files, locks, schema
from construir_ftp.errors import ConstruirError
from construir_ftp.layers import waiting

IMAGE, MANIFEST = "layer.sqfs", "layer.json"
# Lists and package files of the base images' archives, beside the layers.
ARCHIVES = ".archives"


class LayerManifest(msgspec.Struct, frozen=True, kw_only=True):
    """layer.json. `base` is the digest of the base image it was made on; `under` the layers that have to lie below it.

    `contents` is sorted name=version for Debian packages, else the id of the result it was published from; `asked` is
    what of the packages was asked for when it was made, empty if nobody has noted that.
    """

    version: int = 1
    name: str
    kind: Literal["packages", "published"]
    base: str
    architecture: str
    contents: list[str]
    asked: list[str] = []
    under: list[str] = []
    bytes: int
    installed_bytes: int
    sha256: str
    created: datetime

    def packages(self) -> set[str]:
        """The names of the Debian packages in it."""
        return {label.partition(":")[0] for label in self.contents} if self.kind == "packages" else set()


class Layer(msgspec.Struct, frozen=True):
    """A layer that was found."""

    path: Path
    manifest: LayerManifest

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.path.name

    @property
    def image(self) -> Path:
        """The squashfs file, only ever read."""
        return self.path / IMAGE

    def last_used(self) -> datetime:
        """Aware UTC."""
        return datetime.fromtimestamp((self.path / MANIFEST).stat().st_mtime, UTC)


class Store:
    """The layers in one directory. Safe to use from several threads and processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, name: str) -> Layer | None:
        """The layer called `name`, under its full name, if there is one that can be read."""
        try:
            manifest = schema.from_json(files.read_anew(self.path / name / MANIFEST, levels=2), LayerManifest)
        except (OSError, msgspec.MsgspecError):
            return None
        return Layer(self.path / manifest.name, manifest)

    def every(self) -> list[Layer]:
        """All layers, by name, each once."""
        found = (self.find(path.name) for path in self.path.glob("[!.]*"))
        layers = {layer.name: layer for layer in found if layer}
        return [layers[name] for name in sorted(layers)]

    def chain(self, layer: Layer) -> list[Layer]:
        """The layer and all that have to lie below it, the lowest first. Raises ConstruirError if one is missing."""
        below = []
        for name in layer.manifest.under:
            found = self.find(name)
            if found is None:
                raise ConstruirError(f"layer {layer.name} lies on {name}, which is gone; run: construir layer gc")
            below.append(found)
        return [*below, layer]

    def use(self, layer: Layer) -> None:
        """Note that it is used now."""
        os.utime(layer.path / MANIFEST)

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """A directory to make a layer in; what is not put in place is gone afterwards.

        After a kill -9 it stays until the next one is made.
        """
        with locks.scratch_directory(self.path, ".draft-") as draft:
            yield draft

    def put(self, draft: Path, manifest: LayerManifest) -> Layer:
        """Give a finished draft its name, on stable storage; one that was there before under that name stays."""
        place = draft / "layer"
        place.mkdir()
        place.chmod(0o755)  # whatever the umask says
        (draft / IMAGE).rename(place / IMAGE)
        (place / IMAGE).chmod(0o444)
        files.fsync(place / IMAGE)
        files.write_durably(place / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)), 0o644)
        files.fsync(place)
        if not files.is_there(self.path / manifest.name):
            place.rename(self.path / manifest.name)
            files.fsync(self.path)
        found = self.find(manifest.name)
        assert found is not None
        return found

    def publish(self, draft: Path, manifest: LayerManifest) -> Layer:
        """Like put, and then NAME is this version; the ones before stay under their full names.

        Who looks NAME up meanwhile gets either version whole: its layer.json leads to the full name, and comes last.
        """
        layer = self.put(draft, manifest)
        current = self.path / versionless(layer.name)
        current.mkdir(exist_ok=True)
        current.chmod(0o755)
        for file in (IMAGE, MANIFEST):
            (draft / file).hardlink_to(layer.path / file)
            (draft / file).rename(current / file)
        files.fsync(current)
        files.fsync(self.path)
        return layer

    def remove(self, layer: Layer) -> bool:
        """Delete it, unless somebody holds it; machines that run keep it open. Raises OSError."""
        with (layer.path / MANIFEST).open("r+b") as file:
            try:
                locks.take(file.fileno(), wait=False)
            except BlockingIOError:
                return False
            outgoing = Path(tempfile.mkdtemp(prefix=".outgoing-", dir=self.path))
            name = versionless(layer.name)
            if name != layer.name and self.find(name) == layer:
                (self.path / name).rename(outgoing / name)
            layer.path.rename(outgoing / layer.name)
            files.fsync(self.path)
        shutil.rmtree(outgoing, ignore_errors=True)
        return True

    @contextmanager
    def hold(self, layers: list[Layer]) -> Iterator[None]:
        """Keep layers from being removed (locks). Raises ConstruirError if one is gone already."""
        with ExitStack() as stack:
            for layer in layers:
                try:
                    file = stack.enter_context((layer.path / MANIFEST).open("rb"))
                except FileNotFoundError as error:
                    raise _deleted(layer) from error
                locks.take(file.fileno(), shared=True)
                if not files.is_still(layer.path / MANIFEST, file.fileno(), levels=2):
                    raise _deleted(layer)
            yield

    @contextmanager
    def alone(self, name: str, stop: socket.socket | None = None) -> Iterator[None]:
        """Hold the right to make the layer `name` (locks); whoever else wants to, waits until told to stop.

        Raises StoppedError.
        """
        with waiting.locked(self.path / f".lock-{name}", stop):
            yield


def versionless(name: str) -> str:
    """What jobs call a published layer: NAME of NAME@VERSION."""
    return name.partition("@")[0]


def _deleted(layer: Layer) -> ConstruirError:
    return ConstruirError(f"layer {layer.name} has just been deleted; try again")
