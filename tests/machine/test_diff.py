"""`construir image diff` says what made an image another one."""

import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from construir_ftp.cli.images import difference_lines
from construir_ftp.image import baseimage, diff
from construir_ftp.image.baseimage import BaseImage
from tests.support.appliance import construir
from tests.support.baseimages import publish

DATE = datetime(2026, 11, 16, tzinfo=UTC)


def altered(base: BaseImage, **changes: object) -> BaseImage:
    """The same files under another manifest."""
    return msgspec.structs.replace(base, manifest=msgspec.structs.replace(base.manifest, **changes))


@pytest.fixture
def base(tmp_path: Path) -> BaseImage:
    return publish(tmp_path, "worker", {"etc/motd": "welcome\n"}, {"bash": "5.2-1", "gone": "1"})


def test_changed_added_and_removed_packages_are_named(tmp_path: Path, base: BaseImage) -> None:
    publish(
        tmp_path, "other", {"etc/motd": "welcome\n", "usr/bin/hello": "hello\n"}, {"bash": "5.2-2", "hello": "2.10"}
    )
    said = construir("image", "diff", "worker", "other", f"--images={tmp_path}")
    assert said.returncode == 1
    lines = [line.strip() for line in said.stdout.splitlines()]
    assert lines[0].startswith("different: 3 packages (1 changed, 1 added, 1 removed); ")
    assert re.search(r"; \d+ files \(3 added\); of the parts: root\.img$", lines[0])
    assert lines[1:5] == ["packages: 3", "~ bash 5.2-1 -> 5.2-2", "- gone 1", "+ hello 2.10"]
    assert "~ root.img" in lines
    assert any(line.startswith("+ /usr/bin/hello file 0644 ") for line in lines)
    assert not any("/etc/motd" in line and "content" in line for line in lines)


def test_image_and_itself_are_the_same(tmp_path: Path, base: BaseImage) -> None:
    said = construir("image", "diff", base.name, base.path, f"--images={tmp_path}")
    assert (said.returncode, said.stdout) == (0, "the same, byte for byte\n")


def test_older_version_can_be_named_by_its_digest(tmp_path: Path, base: BaseImage) -> None:
    publish(tmp_path, "worker", {"etc/motd": "changed\n"})
    older = f"worker@{base.path.name[:8]}"
    assert "~ /etc/motd" in construir("image", "diff", older, "worker", f"--images={tmp_path}").stdout
    assert base.path.name in construir("image", "list", "--all", f"--images={tmp_path}", check=True).stdout
    said = construir("image", "diff", "worker@0123", "worker", f"--images={tmp_path}")
    assert said.stderr == "construir: base image 'worker' has no version 0123; run: construir image list --all\n"
    assert said.returncode == 1


def test_recipe_is_compared_too(base: BaseImage) -> None:
    old = altered(base, date=DATE, ingredients={"packages": "1", "hooks/30-trim": "2"}, sources=["deb x"])
    new = altered(base, suite="trixie", include=["gcc"], ingredients={"packages": "3"}, snapshot="20260131T000000Z")
    report = diff.compare(old, new)
    assert {change.what for change in report.settings} == {"suite", "included packages", "snapshot", "sources", "date"}
    assert [(change.what, change.new) for change in report.ingredients] == [("hooks/30-trim", None), ("packages", "3")]
    assert (report.parts, report.files, report.is_same()) == ([], [], True)
    assert "  ~ suite bookworm -> trixie" in list(difference_lines(report))


def test_name_made_to_upset_a_terminal_is_escaped(tmp_path: Path, base: BaseImage) -> None:
    publish(tmp_path, "other", {"\x1b[31mred": "x"})
    text = construir("image", "diff", base.name, "other", f"--images={tmp_path}").stdout
    assert "\x1b" not in text
    assert "\\x1b[31mred" in text
    as_json = msgspec.json.decode(
        construir("image", "diff", base.name, "other", "--json", f"--images={tmp_path}").stdout
    )
    assert "/\\x1b[31mred" in [file["path"] for file in as_json["files"]]


def test_directory_without_a_manifest_is_no_image(tmp_path: Path, base: BaseImage) -> None:
    said = construir("image", "diff", base.name, f"{tmp_path}/", f"--images={tmp_path}")
    assert said.returncode == 1
    assert f"there is no {baseimage.MANIFEST} in it" in said.stderr
