"""A result becomes a layer: what is in it, under which name, and what a hostile one can't do."""

import os
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import msgspec
import pytest
from click.testing import CliRunner

from construir_ftp.cli.main import construir
from construir_ftp.errors import ConstruirError, UsageError
from construir_ftp.jail import cell, jail
from construir_ftp.jobs import result as results
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.layers import publish as publishing
from construir_ftp.layers.store import Layer, Store
from construir_ftp.pack import pack
from construir_ftp.units import Size
from tests.support import images
from tests.support.images import MIB

ID = "20260101T000000Z-0000-first"
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    place = images.job_directory(tmp_path / "tree")
    (place / "out/usr/bin").mkdir(parents=True)
    (place / "out/usr/bin/tool").write_bytes(b"x" * 5000)
    (place / "out/usr/bin/tool").chmod(0o6755)
    (place / "out/usr/bin/same").hardlink_to(place / "out/usr/bin/tool")
    (place / "out/usr/lib").symlink_to("../../../etc")
    with (place / "out/usr/sparse").open("wb") as file:
        file.truncate(3 * MIB + 1)
    os.mkfifo(place / "out/usr/pipe")
    return place


def done(
    spool: Spool, image: bytes | Path, job_id: str = ID, status: results.Status = "success", codec: str = "zstd"
) -> Job:
    """A result with an image, or with one of a directory."""
    job = Job(spool.state("done") / job_id)
    job.path.mkdir()
    if isinstance(image, Path):
        pack.pack(image, job.path / "raw.img", MIB, "raw")
        image = (job.path / "raw.img").read_bytes()
    (job.path / "first.img").write_bytes(images.pack(codec, image))
    result = results.Result(
        id=job_id,
        name="first",
        contributor="ann",
        status=status,
        reason="",
        exit_code=0,
        image="first.img",
        codec=codec,
        filesystem="ext2",
        upload_sha256="",
        upload_bytes=0,
        image_bytes=len(image),
        received=NOON,
        published=NOON,
        attempt=1,
    )
    job.result.write_bytes(results.encode(result))
    return job


def publish(store: Store, job: Job, name: str = "tool", path: str | None = "out", most_bytes: int = 8 * MIB) -> Layer:
    directory = PurePosixPath(path) if path else None
    return publishing.publish(
        store, job, name, directory=directory, architecture="amd64", max_installed=Size(most_bytes)
    )


def unsquashed(layer: Layer, place: Path) -> Path:
    subprocess.run(["unsquashfs", "-quiet", "-no-progress", "-d", place, layer.image], check=True, stdout=-3)
    return place


@pytest.mark.parametrize("codec", ["zstd", "gzip"])
def test_directory_of_a_result_is_the_root_of_its_layer(
    spool: Spool, store: Store, tree: Path, tmp_path: Path, codec: str
) -> None:
    layer = publish(store, done(spool, tree, codec=codec), path="/out")
    found = unsquashed(layer, tmp_path / "found")
    assert found.stat().st_mode & 0o7777 == 0o755
    assert sorted(str(path.relative_to(found)) for path in found.rglob("*")) == [
        *("usr", "usr/bin", "usr/bin/same", "usr/bin/tool", "usr/lib", "usr/sparse")
    ]
    tool = (found / "usr/bin/tool").stat()
    assert (tool.st_mode & 0o7777, tool.st_nlink, tool.st_size) == (0o755, 2, 5000)
    assert tool.st_uid == os.geteuid()
    assert str((found / "usr/lib").readlink()) == "../../../etc"
    assert (found / "usr/sparse").read_bytes() == bytes(3 * MIB + 1)
    assert layer.manifest.contents == [ID]
    assert layer.manifest.installed_bytes == 5000 + 3 * MIB + 1


def test_layer_is_the_same_whichever_uid_its_jail_has(spool: Spool, store: Store, tree: Path) -> None:
    job = done(spool, tree)
    first = publish(store, job)
    with jail.host().hold(cell.Cell(), ["sleep", "60"]):  # as root, it takes the uid that the first one had
        assert publish(store, job) == first
    assert store.every() == [first]


def test_whole_image_comes_without_what_is_the_jobs_own(spool: Spool, store: Store, tree: Path, tmp_path: Path) -> None:
    found = unsquashed(publish(store, done(spool, tree), path=None), tmp_path / "found")
    assert [path.name for path in found.iterdir()] == ["out"]


def test_same_content_is_one_layer_and_other_content_a_new_version(spool: Spool, store: Store, tree: Path) -> None:
    first = publish(store, done(spool, tree))
    time.sleep(1.1)  # squashfs knows seconds
    again = publish(store, done(spool, tree, ID + "-again"))
    assert again == first
    (tree / "out/new").write_text("new")
    second = publish(store, done(spool, tree, ID + "-new"))
    assert [store.find("tool"), store.find(first.name)] == [second, first]
    assert second.name == f"tool@{second.manifest.sha256[:12]}"
    assert sorted(path.name for path in store.path.glob("[!.]*")) == sorted(["tool", first.name, second.name])
    assert second.image.samefile(store.path / "tool/layer.sqfs")
    assert list(store.path.glob(".draft-*")) == []


@pytest.mark.parametrize("name", ["packages-1", "a@b", ".hidden", "../x", "a/b", ""])
def test_name_that_jobs_could_not_ask_for_is_refused(spool: Spool, store: Store, tree: Path, name: str) -> None:
    with pytest.raises(UsageError, match="a layer is called by letters"):
        publish(store, done(spool, tree), name)


@pytest.mark.parametrize("path", ["none", "run.sh", "out/usr/lib", "out/../out"])
def test_what_is_no_directory_of_the_image_is_not_published(spool: Spool, store: Store, tree: Path, path: str) -> None:
    with pytest.raises(UsageError, match="there is no directory"):
        publish(store, done(spool, tree), path=path)


def test_only_what_a_successful_job_left_is_published(spool: Spool, store: Store, tree: Path) -> None:
    with pytest.raises(UsageError, match="ended as failed"):
        publish(store, done(spool, tree, status="failed"))


def test_more_than_a_layer_may_hold_is_not_read(spool: Spool, store: Store, tree: Path) -> None:
    with (tree / "out/huge").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ConstruirError, match="takes more than 8 MiB"):
        publish(store, done(spool, tree))
    assert store.every() == []
    assert list(store.path.glob(".draft-*")) == []


def test_damaged_image_leaves_no_layer(spool: Spool, store: Store) -> None:
    image = bytearray(images.image())
    image[2048:8192] = b"\xff" * 6144
    with pytest.raises(ConstruirError, match="the image"):
        publish(store, done(spool, bytes(image)), path=None)
    assert store.every() == []


def test_layers_are_listed_shown_and_collected_by_name(spool: Spool, store: Store, tree: Path, tmp_path: Path) -> None:
    layer = publish(store, done(spool, tree))

    def said(*argv: str) -> str:
        ran = CliRunner().invoke(construir, ["layer", *argv, "--spool", str(spool.path)], catch_exceptions=False)
        assert ran.exit_code == 0
        return ran.output

    assert "tool@" in said("list")
    for told in (*msgspec.json.decode(said("list", "--json")), msgspec.json.decode(said("show", "tool", "--json"))):
        assert told["current"] is True
        assert told["manifest"]["sha256"] == layer.manifest.sha256
    assert ID in said("show", layer.name)
    assert said("show", "to") == said("show", layer.name[:-3]) == said("show", "tool")
    for word, why in (("", "there is no layer ''"), ("tools", "there is no layer 'tools'")):
        refused = CliRunner().invoke(construir, ["layer", "show", word, "--spool", str(spool.path)])
        assert isinstance(refused.exception, UsageError)
        assert why in str(refused.exception)
    (tmp_path / "small.toml").write_text('[layers]\nmax_total = "1B"\n')
    options = ("gc", "--config", str(tmp_path / "small.toml"))
    assert said(*options, "--dry-run") == f"would delete {layer.name}: layers take more than 0 MiB\n"
    assert said(*options).startswith(f"deleted {layer.name}")
    assert said("list", "--json") == "[]\n"
