"""Base images: what is in one, that damage is noticed, what recipes come to."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from construir_ftp import architecture
from construir_ftp.config import APPLIANCE_IMAGES
from construir_ftp.diskimage.codec import inflate
from construir_ftp.errors import ConstruirError, UsageError
from construir_ftp.image import baseimage, recipe
from construir_ftp.image.baseimage import BaseImage
from tests.support import images
from tests.support.appliance import construir, copy_program
from tests.support.baseimages import publish
from tests.support.images import run
from tests.support.places import PROJECT


def inside(base: BaseImage, command: str) -> str:
    """What debugfs says of the root disk."""
    return subprocess.run(["debugfs", "-R", command, base.root], capture_output=True, text=True, check=True).stdout


def plain(**told: Any) -> recipe.Recipe:
    """A recipe that says what it has to, and what a test wants of it."""
    return recipe.Recipe(**{"name": "x", "suite": "bookworm", "architecture": architecture.native()} | told)


@pytest.fixture
def copy(base: BaseImage, tmp_path: Path) -> BaseImage:
    """A copy of the base image whose files may be changed."""
    (tmp_path / base.name).mkdir()
    for part in base.path.iterdir():
        (tmp_path / base.name / part.name).symlink_to(part)
    return baseimage.find(tmp_path, base.name)


def test_image_that_is_not_there_is_named_with_the_command_that_builds_it(tmp_path: Path) -> None:
    with pytest.raises(
        ConstruirError, match=r"base image 'nothing' not found in .*; run: construir image build nothing"
    ):
        baseimage.find(tmp_path, "nothing")


@pytest.mark.root("an appliance's images are mounted, where nobody else sees it")
@pytest.mark.parametrize(("name", "is_told"), [("", True), ("other-amd64", False)])
def test_those_of_this_computers_appliance_are_named_to_an_ordinary_user_who_lacks_one(
    base: BaseImage, tmp_path: Path, name: str, *, is_told: bool
) -> None:
    (tmp_path / "appliance").mkdir()
    (tmp_path / "appliance" / (name or base.name)).symlink_to("version")
    (tmp_path / "appliance/version").mkdir()
    for part in (baseimage.MANIFEST, baseimage.ROOT):
        (tmp_path / "appliance/version" / part).write_bytes((base.path / baseimage.MANIFEST).read_bytes())
    images.job_directory(tmp_path / "greet", b"#!/bin/sh\n")
    script = f"""mkdir -p {APPLIANCE_IMAGES} && mount --bind appliance {APPLIANCE_IMAGES} &&
        exec {sys.executable} -m construir_ftp run greet --images mine --spool spool"""
    argv = ["unshare", "--mount", "--propagation=private", "sh", "-c", script]
    env = {**os.environ, "PYTHONPATH": str(PROJECT)}
    said = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    told = f", or use those of this computer's appliance: --images {APPLIANCE_IMAGES}\n"
    assert (said.returncode, said.stderr.count("\n")) == (1, 1)
    assert f"run: construir image build {base.name} --images {tmp_path}/mine" in said.stderr
    assert said.stderr.endswith(told) == is_told


def test_one_changed_byte_is_noticed(copy: BaseImage) -> None:
    initrd = bytearray(copy.initrd.read_bytes())
    initrd[1000] ^= 1
    copy.initrd.unlink()
    copy.initrd.write_bytes(initrd)
    with pytest.raises(ConstruirError, match=r"initrd\.img is not what was built"):
        baseimage.verify(copy)
    with pytest.raises(ConstruirError, match=r"initrd\.img is not what was built"):
        baseimage.prove(copy)


def test_missing_part_is_noticed(copy: BaseImage) -> None:
    copy.kernel.unlink()
    with pytest.raises(ConstruirError, match="kernel is not what was built"):
        baseimage.prove(copy)


def test_damaged_manifest_is_an_error_and_not_an_image(copy: BaseImage) -> None:
    manifest = copy.path / baseimage.MANIFEST
    manifest.unlink()
    manifest.write_text('{"version": 1}')
    with pytest.raises(ConstruirError, match="can't be read"):
        baseimage.find(copy.path.parent, copy.name)


def test_root_disk_has_no_journal_and_runjob_in_place(base: BaseImage) -> None:
    features = inside(base, "features")
    assert "has_journal" not in features
    assert "Mode:  0755" in inside(base, "stat /root/runjob")


def test_root_password_is_vagrant(base: BaseImage) -> None:
    shadow = inside(base, "cat /etc/shadow").splitlines()
    stored = next(line.split(":")[1] for line in shadow if line.startswith("root:"))
    said = subprocess.run(
        ["perl", "-e", "print crypt($ARGV[0], $ARGV[1])", "vagrant", stored], capture_output=True, text=True, check=True
    )
    assert said.stdout == stored


def test_nothing_in_the_image_tells_two_machines_apart(base: BaseImage) -> None:
    assert inside(base, "cat /etc/machine-id") == ""
    assert "ssh_host" not in inside(base, "ls /etc/ssh")


def test_manifest_names_every_part_and_package(base: BaseImage) -> None:
    assert set(base.manifest.parts) == set(baseimage.PARTS)
    assert {"bash", "perl-base", "linux-image-cloud-amd64"} <= set(base.manifest.packages)
    assert base.manifest.kernel_release in "".join(base.manifest.packages)


def test_image_of_the_same_recipe_is_not_built_again(tmp_path: Path) -> None:
    name = recipe.default_name("bookworm", architecture.native())
    built = publish(tmp_path, name, {}, recipe=plain(name=name).digest())
    said = construir("image", "build", name, f"--images={tmp_path}", check=True).stdout
    assert said.startswith(f"{name} is there already")
    assert baseimage.find(tmp_path, name) == built


def test_recipe_changes_with_anything_it_is_made_from(tmp_path: Path) -> None:
    copied = tmp_path / "program"
    copy_program(copied)

    def digest(**settings: object) -> str:
        """By a program that has a base-image/ of its own."""
        wanted = {"name": "x", "suite": "bookworm", "architecture": "amd64", **settings}
        script = f"from construir_ftp.image.recipe import Recipe; print(Recipe(**{wanted!r}).digest())"
        return run(sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(copied)!r}); {script}")

    digests = {digest(), digest(suite="trixie"), digest(include=("gcc",))}
    (copied / "base-image" / "packages").write_text("less\n")
    digests.add(digest())
    (copied / "base-image" / "overlay" / "root" / "runjob").chmod(0o644)
    digests.add(digest())
    assert len(digests) == 5


def test_list_and_verify_speak_of_what_is_there(base: BaseImage) -> None:
    assert base.name in construir("image", "list", check=True).stdout
    assert construir("image", "verify", base.name, check=True).stdout == (
        f"{base.name} is whole: {base.manifest.digest()}\n"
    )
    assert construir("image", "verify", "nothing").returncode == 1


def test_snapshot_takes_every_source_from_the_mirror_that_is_configured() -> None:
    bare = plain()
    assert bare.sources() == []
    mirror = "http://mirror.example.org/archive/"
    pinned = plain(snapshot="20260131T000000Z", snapshot_mirror=mirror)
    kept = "deb [check-valid-until=no] http://mirror.example.org/archive"
    assert pinned.sources() == [
        f"{kept}/debian/20260131T000000Z bookworm main",
        f"{kept}/debian/20260131T000000Z bookworm-updates main",
        f"{kept}/debian-security/20260131T000000Z bookworm-security main",
    ]
    assert pinned.digest() != bare.digest()
    with pytest.raises(UsageError, match=r"set images\.snapshot_mirror"):
        plain(snapshot="20260131T000000Z")
    with pytest.raises(UsageError, match="is no time of a snapshot"):
        plain(snapshot="yesterday", snapshot_mirror=mirror)


def test_a_name_says_suite_and_architecture_and_each_has_a_kernel() -> None:
    assert recipe.meant_by("trixie-amd64") == ("trixie", "amd64")
    assert recipe.meant_by("sid-arm64-gcc") == ("sid", "arm64")
    assert recipe.meant_by("mine") == recipe.meant_by("my-own") == ("bookworm", architecture.native())
    for name in architecture.KNOWN:
        assert recipe.kernel_package("trixie", name).startswith("linux-image-")


def test_a_name_that_may_be_meant_to_be_a_releases_is_asked_about() -> None:
    for name in ("bokworm", "trixe", "trixie", "Bookworm-gcc"):
        with pytest.raises(UsageError, match=f"did you mean (bookworm|trixie)-{architecture.native()}[?] To call"):
            recipe.demand_no_suite(name)
    for name in ("mine", "my-own", "trixie-amd64", "bokworm-amd64-gcc", "gcc", "aside"):
        recipe.demand_no_suite(name)


def test_decompressor_that_is_missing_is_named() -> None:
    with pytest.raises(ConstruirError, match="no-such-tool: not installed"):
        inflate("no-such-tool", b"")
