"""An image that is built two days later is the same, byte for byte; for maintainer scripts, too, it was another day.

Only with --all: the later build is done in a machine, and takes as long as that is slow.
"""

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from construir_ftp.image.baseimage import BaseImage
from construir_ftp.machine.shape import Shape
from tests.support import otherday
from tests.support.appliance import construir
from tests.support.baseimages import twin_of

# What is signed for bookworm-security is good for a week.
AHEAD = timedelta(days=2)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that is gone afterwards: pytest keeps its own, and this takes gigabytes."""
    with tempfile.TemporaryDirectory(prefix="construir-test-", dir="/var/tmp") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def later(request: pytest.FixtureRequest, base: BaseImage, shape: Shape, place: Path) -> BaseImage:
    """The default image, built when it is two days later."""
    if not request.config.getoption("--all"):
        pytest.skip("an image is built inside a machine for this, which takes many minutes: only with --all")
    return otherday.build(base.name, datetime.now(UTC) + AHEAD, shape, place)


def test_image_built_two_days_later_is_the_same_byte_for_byte(later: BaseImage, base: BaseImage, place: Path) -> None:
    today = twin_of(later, base, place / "today")
    if later.manifest.packages != today.manifest.packages:
        pytest.skip("the archive has changed between the two builds")
    assert later.manifest.created.date() > today.manifest.created.date()
    said = construir("image", "diff", today.path, later.path)
    assert said.stdout == "the same, byte for byte\n"
    assert later.manifest.parts == today.manifest.parts
