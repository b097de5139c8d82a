"""Promises of the proof of base images: what changes while it is read was not proved."""

import os
import threading
from pathlib import Path

import msgspec
import pytest

from construir_ftp.errors import BaseImageError
from construir_ftp.image import baseimage
from construir_ftp.image.baseimage import BaseImage
from tests.support import baseimages, belongings

# Of nothing but zeros: long enough to be seen while it is read.
_KERNEL_BYTES = 2**28


@pytest.fixture
def large(tmp_path: Path) -> BaseImage:
    """One whose kernel takes a while to be read."""
    base = baseimages.publish(tmp_path, "large", {"bin/sh": "sh"})
    os.truncate(base.kernel, _KERNEL_BYTES)
    parts = {**base.manifest.parts, baseimage.KERNEL: baseimage.measure(base.kernel)}
    (base.path / baseimage.MANIFEST).write_bytes(
        msgspec.json.encode(msgspec.structs.replace(base.manifest, parts=parts))
    )
    return baseimage.find(tmp_path, "large")


def test_a_part_that_changes_once_it_was_read_is_not_proved(large: BaseImage) -> None:
    reading = threading.Thread(target=baseimage.prove, args=(large,))
    reading.start()
    while reading.is_alive() and str(large.kernel) not in belongings.descriptors():
        pass
    assert reading.is_alive(), "the root disk was read, and the kernel is being read"
    with large.root.open("r+b") as root:
        root.write(b"!")
    reading.join()
    with pytest.raises(BaseImageError, match=r"root\.img is not what was built"):
        baseimage.prove(large)


def test_a_manifest_that_says_other_digests_is_not_believed(large: BaseImage) -> None:
    baseimage.prove(large)
    manifest = large.path / baseimage.MANIFEST
    digest = large.manifest.parts[baseimage.ROOT].sha256
    manifest.write_text(manifest.read_text().replace(digest, digest[::-1]))
    with pytest.raises(BaseImageError, match=r"root\.img is not what was built"):
        baseimage.prove(baseimage.read(large.path, "large"))


def test_what_changes_and_is_mended_has_changed(large: BaseImage) -> None:
    proved = baseimage.prove(large)
    baseimage.demand_unchanged(proved)
    with large.root.open("r+b") as root:
        first = root.read(1)
        for content in (b"!", first):
            root.seek(0)
            root.write(content)
    with pytest.raises(BaseImageError, match="has changed while a machine ran on it"):
        baseimage.demand_unchanged(proved)
    assert baseimage.prove(large).marks != proved.marks
