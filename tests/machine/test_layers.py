"""Layers of Debian packages: made once, in a machine without network; found by what is in them; failures are told."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from construir_ftp.errors import CommandError, ConstruirError, RefusedError
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.layers.apt import Archive, plainly
from construir_ftp.layers.build import Workshop
from construir_ftp.layers.store import ARCHIVES, Layer, Store
from construir_ftp.machine.guest import Errand
from construir_ftp.machine.shape import Shape
from construir_ftp.machine.vm import Machine
from tests.support import machines, smalldisk
from tests.support.debarchive import DebArchive
from tests.support.machines import assignment

TIMEOUT_S = 120
# Installs hello, from an archive that has it already, on a disk that is too small for it.
ON_A_FULL_DISK = """
import sys, threading, time
from pathlib import Path
from construir_ftp.image import baseimage
from construir_ftp.config import MachineSection
from construir_ftp.errors import ConstruirError
from construir_ftp.layers.apt import Archive
from construir_ftp.layers.build import Workshop
from construir_ftp.layers.store import Store
from construir_ftp.machine.shape import Shape
layers, archives, images, name = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]

def fill_once_a_machine_is_at_work():
    while not list(layers.glob(".draft-*/console.log")):
        time.sleep(0.01)
    with Path(layers, "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass

threading.Thread(target=fill_once_a_machine_is_at_work, daemon=True).start()
base = baseimage.find(images, name)
archive = Archive(archives, base)
shape = Shape.of(MachineSection(), base, "tcg", 2**30)
try:
    Workshop(Store(layers), archive, shape, 60).ensure(archive.resolve(("hello",)))
except ConstruirError as error:
    print(error)
print(sorted(path.name[:6] for path in layers.iterdir()))
"""


@pytest.fixture(scope="module", params=machines.KINDS, ids=["usual", "user-mode"])
def roomy(request: pytest.FixtureRequest, images: Path) -> Shape:
    return machines.of_kind(request.param, images, read_only_disks=4)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, base: BaseImage) -> Archive:
    found = Archive(tmp_path_factory.mktemp("archive"), base)
    found.refresh()
    return found


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[Store]:
    (tmp_path / "layers").mkdir()
    yield Store(tmp_path / "layers")
    assert [path.name for path in (tmp_path / "layers").glob(".*") if not path.name.startswith(".lock-")] == []


def said_with(layers: list[Layer], script: str, shape: Shape, place: Path) -> str:
    (place / "job").mkdir()
    (place / "job" / "run.sh").write_text(f"#!/bin/sh\n{script}\n")
    (place / "job" / "run.sh").chmod(0o755)
    errand = Errand(hostname="layers", filesystem="ext2", layers=len(layers))
    images = tuple(layer.image for layer in layers)
    task = assignment(place / "run", place / "job", errand=errand, layers=images)
    with Machine.start(shape) as machine:
        machine.run(task)
    return task.output.read_text()


def test_unknown_package_is_refused_by_its_name(archive: Archive) -> None:
    with pytest.raises(RefusedError, match="Unable to locate package no-such-thing"):
        archive.resolve(("hello", "no-such-thing"))
    with pytest.raises(RefusedError, match=r"Version '0\.1' for 'hello' was not found"):
        archive.resolve(("hello=0.1",))


def test_what_apt_says_is_told_without_paths_of_the_host() -> None:
    words = "exit status 100 from: apt-get update (E: Failed to fetch http://deb.debian.org/debian/x  404; E: /y is)"
    told = plainly(CommandError(words))
    assert told == "Failed to fetch http://deb.debian.org/debian/x  404 ... is"


def test_what_the_base_image_has_already_is_no_part_of_a_plan(archive: Archive) -> None:
    assert archive.resolve(("dpkg",)).packages == ()


def test_archive_whose_signatures_are_by_nobody_known_is_not_used(archive: Archive, base: BaseImage) -> None:
    place = archive.place.with_name("unknown")
    other = Archive(place, base)
    other.prepare()
    for key in other.place.glob("base/etc/apt/trusted.gpg.d/*"):
        key.unlink()
    with pytest.raises(ConstruirError, match="public key is not available"):
        other.refresh()


def test_ten_who_ask_at_once_get_one_layer_that_works(
    archive: Archive, layers: Store, roomy: Shape, tmp_path: Path
) -> None:
    plan = archive.resolve(("hello",))
    workshop = Workshop(layers, archive, roomy, TIMEOUT_S)
    with ThreadPoolExecutor(10) as pool:
        asked = [pool.submit(workshop.ensure, plan) for _ in range(10)]
        made = {layer.result().manifest.created for layer in asked}
    assert len(made) == 1
    layer = asked[0].result()
    assert layer.manifest.contents == plan.versions()
    larger = workshop.ensure(archive.resolve(("hello", "tree")))
    assert larger.manifest.under == [layer.name]
    script = "hello; tree --version; dpkg-query --show --showformat '${Package} ${Status}\\n' hello tree; dpkg --audit"
    output = said_with(layers.chain(larger), script, roomy, tmp_path)
    assert output.startswith("Hello, world!\ntree v")
    assert output.endswith("hello install ok installed\ntree install ok installed\n")


def test_packages_that_cannot_be_installed_are_told_in_dpkgs_words(
    base: BaseImage, layers: Store, roomy: Shape, tmp_path: Path
) -> None:
    debs = DebArchive(tmp_path / "archive")
    debs.add("broken")
    debs.cut("broken")
    debs.serve(tmp_path / "spool", base)
    archive = Archive(tmp_path / "spool" / "layers" / ARCHIVES, base)
    archive.refresh()
    with pytest.raises(ConstruirError, match=r"could not be installed \(exit code 1\): .*dpkg"):
        Workshop(layers, archive, roomy, TIMEOUT_S).ensure(archive.resolve(("broken",)))
    assert layers.every() == []


def test_full_disk_is_told_before_anything_is_made_and_leaves_no_draft(
    archive: Archive, base: BaseImage, images: Path, tmp_path: Path
) -> None:
    arguments = archive.place.parent, images, base.name
    said = smalldisk.run(tmp_path / "small", 512 * 1024, ON_A_FULL_DISK, *arguments).splitlines()
    assert said[0].startswith("the packages can't be installed: that takes 1.0 MiB of disk here, 0.5 MiB are free")
    assert said[1:] == ["['.lock-']"]


def test_disk_that_fills_while_a_layer_is_made_keeps_no_draft_and_no_layer(
    archive: Archive, base: BaseImage, images: Path, tmp_path: Path
) -> None:
    arguments = archive.place.parent, images, base.name
    said = smalldisk.run(tmp_path / "small", 8 * 2**20, ON_A_FULL_DISK, *arguments)
    *reason, left = said.splitlines()
    assert reason[0].startswith("the packages could not be installed"), said
    assert left == "['.lock-', 'filler']"
