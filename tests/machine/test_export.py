"""A disk in the formats of other hypervisors holds what it held, and is the same file every time."""

import random
import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from construir_ftp.errors import UsageError
from construir_ftp.image import baseimage, bootdisk, export
from construir_ftp.image.baseimage import BaseImage
from tests.support import selfboot
from tests.support.appliance import construir
from tests.support.images import run


@pytest.fixture
def small(tmp_path: Path) -> BaseImage:
    """A base image with a disk that holds nothing but noise, between zeros."""
    disk = tmp_path / "small" / baseimage.DISK
    disk.parent.mkdir()
    with disk.open("wb") as file:
        for at in (0, 3 * 2**20, 9 * 2**20):
            file.seek(at)
            file.write(random.Random(at).randbytes(200_000))
        file.truncate(16 * 2**20)
    manifest = baseimage.Manifest(
        name="small",
        suite="bookworm",
        architecture="amd64",
        include=[],
        recipe="",
        kernel_release="",
        created=datetime.now(UTC),
        parts={},
        packages={},
        disk=baseimage.measure(disk),
    )
    return BaseImage(disk.parent, "small", manifest)


@pytest.mark.parametrize("form", export.FORMATS)
def test_exported_disk_holds_the_same_and_is_the_same_file_every_time(
    small: BaseImage, tmp_path: Path, form: export.Format
) -> None:
    files = [tmp_path / str(number) / "disk" for number in range(8)]
    for file in files:
        file.parent.mkdir()
        export.export(small, form, file)
    assert {file.read_bytes() for file in files} == {files[0].read_bytes()}
    assert f'"format": "{form}"' in run("qemu-img", "info", "-f", form, "--output=json", files[0])
    run("qemu-img", "compare", "-f", "raw", "-F", form, small.path / baseimage.DISK, files[0])
    assert files[0].stat().st_blocks * 512 < 4 * 2**20


def test_vmdk_is_the_same_whatever_number_qemu_made_up(small: BaseImage, tmp_path: Path) -> None:
    export.export(small, "vmdk", tmp_path / "disk")
    whole = (tmp_path / "disk").read_bytes()
    text, _, _ = whole[512 : 512 + 20 * 512].partition(b"\0")
    for number in (b"7", b"509df", b"e1884d", b"ffffffff"):
        other = re.sub(rb"\nCID=.*\n", b"\nCID=%b\n" % number, text)
        # The end of a longer text that was there before, as qemu-img leaves it.
        left = (other + b"\0").ljust(len(text), b"x").ljust(20 * 512, b"\0")
        (tmp_path / "disk").write_bytes(whole[:512] + left + whole[512 + 20 * 512 :])
        assert small.manifest.disk is not None
        export.settle(tmp_path / "disk", "vmdk", small.manifest.disk.sha256)
        assert (tmp_path / "disk").read_bytes() == whole


@pytest.mark.parametrize("form", ["vmdk", "vdi"])
def test_other_disk_is_not_taken_for_the_same(small: BaseImage, tmp_path: Path, form: export.Format) -> None:
    export.export(small, form, tmp_path / "one")
    part = baseimage.Part(small.manifest.disk.bytes if small.manifest.disk else 0, "0" * 64)
    other = msgspec.structs.replace(small, manifest=msgspec.structs.replace(small.manifest, disk=part))
    export.export(other, form, tmp_path / "other")
    assert (tmp_path / "one").read_bytes() != (tmp_path / "other").read_bytes()


def test_failed_export_leaves_what_was_there(small: BaseImage, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    (small.path / baseimage.DISK).unlink()
    with pytest.raises(Exception, match="qemu-img"):
        export.export(small, "qcow2", tmp_path / "kept")
    assert (tmp_path / "kept").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "small"]
    with pytest.raises(UsageError, match="-o"):
        export.export(small, "raw", tmp_path / "nowhere" / "disk")


@pytest.mark.slow("a boot in each format takes a minute")
@pytest.mark.parametrize("form", export.FORMATS)
def test_exported_disk_boots(
    images: Path, base: BaseImage, tmp_path: Path, form: export.Format, request: pytest.FixtureRequest
) -> None:
    exported = tmp_path / f"disk.{form}"
    construir("image", "export", base.name, "--format", form, "-o", exported, f"--images={images}", check=True)
    disk = bootdisk.ensure(images, base).path / baseimage.DISK
    run("qemu-img", "compare", "-f", "raw", "-F", form, disk, exported)
    with selfboot.booted([(exported, form)]) as machine:
        machine.choose_debian()
        machine.expect("login: ")
