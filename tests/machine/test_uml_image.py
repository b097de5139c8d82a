"""A base image with a user-mode kernel: what that adds is the same every time, and a change of it is noticed."""

import shutil
from pathlib import Path

import msgspec
import pytest

from construir_ftp import process
from construir_ftp.errors import ConstruirError, UsageError
from construir_ftp.image import baseimage, uml
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.image.recipe import Recipe
from tests.support import umlimage


def recipe(uml_source: str = "") -> Recipe:
    return Recipe(name="x", suite="bookworm", architecture="amd64", uml=uml_source)


def of_uml(base: BaseImage) -> dict[str, str]:
    """The digests of what only images with such a kernel have."""
    return {name: part.sha256 for name, part in base.manifest.parts.items() if name.startswith(baseimage.UML)}


@pytest.mark.slow("fetches the packages once more")
def test_what_is_fetched_again_makes_the_same_bytes(uml_base: BaseImage, tmp_path: Path) -> None:
    assert uml_base.manifest.date
    wanted = recipe(umlimage.source())
    shutil.copyfile(uml_base.initrd, tmp_path / baseimage.INITRD)
    tmp_path.chmod(0o755)
    uml.fetch(wanted, tmp_path / "fetched", process.environment(HOME=str(tmp_path), TMPDIR=str(tmp_path)))
    release = uml.add(tmp_path / "fetched", tmp_path, int(uml_base.manifest.date.timestamp()))
    names = [name for name in baseimage.parts_in(tmp_path) if name.startswith(baseimage.UML)]
    assert {name: baseimage.measure(tmp_path / name).sha256 for name in names} == of_uml(uml_base)
    assert release == uml_base.manifest.uml


def test_archive_that_nobody_has_signed_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, *tmp_path.parents[:2]):
        place.chmod(0o755)
    lists = tmp_path / "archive" / "dists" / "forky"
    (lists / "main" / "binary-amd64").mkdir(parents=True)
    (lists / "main" / "binary-amd64" / "Packages").touch()
    (lists / "Release").write_text("Suite: forky\nCodename: forky\nComponents: main\nArchitectures: amd64\n")
    environment = process.environment(HOME=str(tmp_path), TMPDIR=str(tmp_path))
    # Without the check of signatures all that is wrong with it is that it lacks the packages.
    for option, failed in (("trusted=no", "apt-get update"), ("trusted=yes", "apt-get .*install")):
        wanted = recipe(f"forky deb [{option}] copy://{tmp_path}/archive forky main")
        with pytest.raises(ConstruirError, match=failed):
            uml.fetch(wanted, tmp_path / option, environment)


def test_root_disk_and_kernel_are_those_of_an_image_without(uml_base: BaseImage, base: BaseImage) -> None:
    if uml_base.manifest.packages != base.manifest.packages:
        pytest.skip("the archive has changed between the two builds")
    for name in baseimage.PARTS:
        assert uml_base.manifest.parts[name] == base.manifest.parts[name], name
    assert (of_uml(base), base.manifest.uml) == ({}, "")
    assert uml_base.manifest.digest() != base.manifest.digest()


@pytest.mark.parametrize("change", ["another byte", "a file more", "a file less"])
def test_change_of_what_it_adds_is_noticed(uml_base: BaseImage, tmp_path: Path, change: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(uml_base.uml, copy / baseimage.UML)
    for name in baseimage.PARTS:
        (copy / name).touch()
    parts = uml_base.manifest.parts | {name: baseimage.measure(copy / name) for name in baseimage.PARTS}
    altered = BaseImage(copy, uml_base.name, msgspec.structs.replace(uml_base.manifest, parts=parts))
    baseimage.verify(altered)
    launch = altered.uml / uml.LAUNCH
    if change == "a file less":
        launch.unlink()
    else:
        with launch.with_name("launch" if change == "another byte" else "more").open("a") as file:
            file.write("#")
    with pytest.raises(ConstruirError, match=r"is not what was built"):
        baseimage.verify(altered)


def test_only_amd64_has_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="for amd64 only"):
        Recipe(name="x", suite="bookworm", architecture="arm64", uml="forky")


def test_recipe_is_another_one_with_it() -> None:
    assert recipe().digest() != recipe("forky").digest() != recipe("sid").digest()
