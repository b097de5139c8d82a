"""Base images and layers that jobs can have: read when the directories that they are in have changed.

What can't be read is left out: what is wrong with it is for its operator, and for `check`.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from construir_ftp.errors import ConstruirError
from construir_ftp.files import Clock
from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.layers.store import Layer, Store


class Stock:
    """Of one appliance."""

    def __init__(self, images: Path, layers: Path) -> None:
        self._images, self._layers = images, layers
        self._clocks = [Clock(images), Clock(layers)]

    def has_changed(self) -> bool:
        """Whether there may be others than the last time that this was asked; at first there are."""
        # Each is asked, so that one change is told once.
        return sum(_has_changed(clock) for clock in self._clocks) > 0

    def base_images(self) -> list[BaseImage]:
        """By name."""
        return list(_readable(self._images))

    def layers(self) -> list[Layer]:
        """By name."""
        return Store(self._layers).every()


def _has_changed(clock: Clock) -> bool:
    with suppress(FileNotFoundError):  # there are no base images yet
        return clock.has_changed()
    return False


def _readable(images: Path) -> Iterator[BaseImage]:
    for name in baseimage.names(images):
        with suppress(ConstruirError, FileNotFoundError):
            yield baseimage.find(images, name)
