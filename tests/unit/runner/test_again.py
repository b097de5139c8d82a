"""What a job is run on once more is what it ran on, by digest; what is another one, or missing, is told."""

import hashlib
import re
import shutil
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from construir_ftp.config import Config, ImagesSection, SpoolSection
from construir_ftp.errors import ConstruirError, MissingError, UsageError
from construir_ftp.image import past
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.image.recipe import ingredients
from construir_ftp.jobs import request
from construir_ftp.jobs.spool import Spool
from construir_ftp.layers.store import IMAGE, Layer, LayerManifest, Store
from construir_ftp.runner import again
from construir_ftp.runner.again import Again, Bring
from construir_ftp.trust.recipe import Recipe
from construir_ftp.trust.statement import Digest, Resource
from tests.support import baseimages, signed

ID = signed.ID
WISHES = 'name = "greet"\nbase = "worker"\nspace = "1MiB"\n[dependencies]\npackages = ["cmake"]\n'


@pytest.fixture
def config(tmp_path: Path, spool: Spool) -> Config:
    return Config(spool=SpoolSection(path=str(spool.path)), images=ImagesSection(path=str(tmp_path / "images")))


@pytest.fixture
def stop() -> Iterator[socket.socket]:
    reader, writer = socket.socketpair()
    with reader, writer:
        yield reader


@pytest.fixture
def old(config: Config) -> BaseImage:
    """A version of a base image that is live no more."""
    old = baseimages.publish(config.images_path(), "worker", {"a": "old"})
    baseimages.publish(config.images_path(), "worker", {"a": "new"})
    return old


def put(store: Store, base: BaseImage, name: str, contents: list[str], under: tuple[str, ...] = ()) -> Layer:
    with store.draft() as draft:
        (draft / IMAGE).write_bytes(name.encode())
        manifest = LayerManifest(
            name=name,
            kind="packages" if "=" in contents[0] else "published",
            base=base.manifest.digest(),
            architecture="amd64",
            contents=contents,
            under=list(under),
            bytes=1,
            installed_bytes=1,
            sha256=hashlib.sha256(name.encode()).hexdigest(),
            created=base.manifest.created,
        )
        return store.put(draft, manifest)


def resource(layer: Layer, sha256: str = "") -> Resource:
    annotations = {"contents": layer.manifest.contents}
    return Resource(layer.name, Digest(sha256 or layer.manifest.sha256), f"construir:layer/{layer.name}", annotations)


def recipe_on(base: BaseImage, *layers: Resource, results: tuple[Resource, ...] = ()) -> Recipe:
    return Recipe(
        run=f"{ID}/1",
        builder="construir://build.example.org/tcg/jail",
        upload_sha256=hashlib.sha256(b"an upload").hexdigest(),
        wishes=WISHES,
        base=Resource(base.name, Digest(base.manifest.digest().removeprefix("sha256:"))),
        layers=layers,
        results=results,
        made={},
    )


def nothing(_name: str, _place: Path) -> bool:
    """A server that has no layers."""
    return False


class Prepared:
    """How `prepare` is called, and what it told."""

    def __init__(self, config: Config, stop: socket.socket) -> None:
        self._config, self._stop = config, stop
        self.told: list[str] = []

    def __call__(self, recipe: Recipe, *, from_upload: bool = True, bring: Bring = nothing) -> Again:
        tell = self.told.append
        return again.prepare(recipe, self._config, self._stop, tell, from_upload=from_upload, bring=bring)


@pytest.fixture
def prepare(config: Config, stop: socket.socket) -> Prepared:
    return Prepared(config, stop)


def test_the_version_it_ran_on_is_found_though_another_one_is_live(prepare: Prepared, old: BaseImage) -> None:
    found = prepare(recipe_on(old))
    assert found.base.path == old.path
    wishes = request.read(found.asks)
    assert (wishes.base, wishes.space, wishes.dependencies.packages) == ("", 2**20, ())
    assert request.read(prepare(recipe_on(old), from_upload=False).asks).space is None, "it has been given its space"
    assert prepare.told == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"suite": None}, "what is told of base image worker is not enough to build it again"),
        ({"imported": "ab"}, "base image worker was imported, so it can't be built again"),
        ({"recipe_files": "ab"}, "made by another version of Construir, whose base-image/ differs: use that version"),
        ({"suite": "nowhere"}, "'nowhere' is no release of Debian or Ubuntu"),
        ({"sources": ["deb [trusted=yes] http://archive.example.org/ bookworm main"]}, "is not enough to build it"),
        ({"sources": ["deb http://archive.example.org/ bookworm main\ndeb [trusted=yes] x y"]}, "is not enough"),
        ({"packages": {"bash": "5.2-1\nPin-Priority: 1"}}, "is not enough to build it again"),
        ({"packages": {"bash; true": "5.2-1"}}, "is not enough to build it again"),
        ({"include": ["--hook-dir=/tmp"]}, "is not enough to build it again"),
        ({"root_bytes": 2**50}, "is not enough to build it again"),
    ],
)
def test_a_base_image_that_is_missing_is_not_built_of_what_would_be_another_one_or_harm(
    prepare: Prepared, old: BaseImage, changes: dict[str, object], why: str
) -> None:
    shutil.rmtree(old.path)
    manifest = msgspec.structs.replace(old.manifest, ingredients=ingredients(), date=old.manifest.created)
    told = {**msgspec.to_builtins(past.of(manifest)), **changes}
    recipe = recipe_on(old)
    assert recipe.base is not None
    made_of = msgspec.structs.replace(recipe.base, annotations=told)
    with pytest.raises(ConstruirError, match=re.escape(why)):
        prepare(msgspec.structs.replace(recipe, base=made_of))
    assert prepare.told == [], "nothing was begun"
    with pytest.raises(
        ConstruirError, match=r"nothing says what base image worker was made of; copy the directory \.v"
    ):
        prepare(recipe_on(old))


def test_what_an_archive_no_longer_has_is_named_with_what_to_do(old: BaseImage) -> None:
    was = past.of(msgspec.structs.replace(old.manifest, packages={"bash": "5.2-1", "sed": "4.9-1", "tar": "1.34"}))
    found = msgspec.structs.replace(old.manifest, packages={"bash": "5.2-2", "sed": "4.9-1"})
    digest = old.manifest.digest()
    assert str(past.difference(was, found, digest)) == (
        "base image worker can't be built as it was: of 2 of its 3 packages the archive no longer has the version: bash"
        " 5.2-1 (there is 5.2-2), tar 1.34 (there is none); set images.snapshot_mirror, or copy the directory"
        f" .versions/worker/{old.path.name} of the images from where the job ran"
    )
    same = msgspec.structs.replace(found, packages=was.packages)
    assert "comes out as another one, of the same packages; copy the" in str(past.difference(was, same, digest))


def test_with_a_mirror_of_snapshots_the_archive_is_that_of_the_day_the_image_was_built(old: BaseImage) -> None:
    day = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
    manifest = msgspec.structs.replace(old.manifest, ingredients=ingredients(), date=day, created=day)
    mirror = ImagesSection(snapshot_mirror="http://snapshot.example.org/archive")
    for given, then in (("", "20260131T123000Z"), ("20260130T000000Z", "20260130T000000Z")):
        was = past.of(msgspec.structs.replace(manifest, snapshot=given))
        wanted = past.recipe_of(was, "worker", old.manifest.digest(), mirror)
        assert (wanted.snapshot, wanted.root_bytes) == (then, old.manifest.parts["root.img"].bytes)
        assert wanted.sources()[0].endswith(f"archive/debian/{then} bookworm main")


def test_layers_are_those_it_had_and_lie_as_they_lay(prepare: Prepared, old: BaseImage, store: Store) -> None:
    lower = put(store, old, "packages-lower", ["libc6-dev:amd64=2.36"])
    upper = put(store, old, "packages-upper", ["cmake:amd64=3.25", "libc6-dev:amd64=2.36"], (lower.name,))
    published = put(store, old, "tools@0123456789ab", [ID])
    found = prepare(recipe_on(old, resource(lower), resource(upper), resource(published)))
    assert request.read(found.asks).dependencies.layers == (upper.name, published.name)
    assert prepare.told == []

    prepare(recipe_on(old, resource(lower), resource(upper, "0" * 64)))
    assert prepare.told == [f"layer {upper.name} has the same packages here, installed at another time"]
    with pytest.raises(ConstruirError, match="is another one here than where the job ran"):
        prepare(recipe_on(old, resource(published, "0" * 64)))
    published.image.chmod(0o644)
    published.image.write_bytes(b"changed")
    with pytest.raises(ConstruirError, match="is another one here than where the job ran"):
        prepare(recipe_on(old, resource(published)))
    shutil.rmtree(published.path)
    with pytest.raises(ConstruirError, match="was published where the job ran: publish it here, too"):
        prepare(recipe_on(old, resource(published)))


def test_a_layer_that_a_server_has_is_taken_if_it_is_the_very_one(
    prepare: Prepared, old: BaseImage, store: Store, tmp_path: Path
) -> None:
    elsewhere = Store(tmp_path / "elsewhere")
    elsewhere.path.mkdir()
    layer = put(elsewhere, old, "tools@0123456789ab", [ID])

    def bring(name: str, place: Path) -> bool:
        for file in (elsewhere.path / name).iterdir():
            shutil.copyfile(file, place / file.name)
        return True

    with pytest.raises(ConstruirError, match="publish it here, too"):
        prepare(recipe_on(old, resource(layer, "0" * 64)), bring=bring)
    manifest = (layer.path / "layer.json").read_bytes()
    for what, other in (
        (b"tools@", b"../../"),
        (b'"under": []', b'"under": ["../x"]'),
        (b"sha256:", b"sha256:0"),
        (b"{", b""),
    ):
        assert what in manifest
        (layer.path / "layer.json").write_bytes(manifest.replace(what, other, 1))
        with pytest.raises(ConstruirError, match="what the server says of it"):
            prepare(recipe_on(old, resource(layer)), bring=bring)
        assert store.every() == []
    (layer.path / "layer.json").write_bytes(manifest)
    prepare(recipe_on(old, resource(layer)), bring=bring)
    (brought,) = store.every()
    assert brought.image.read_bytes() == layer.image.read_bytes()


def test_a_result_it_depended_on_has_to_be_the_same(prepare: Prepared, old: BaseImage, spool: Spool) -> None:
    place = signed.result(spool, None)
    digest = hashlib.sha256((place / "greet.img.zst").read_bytes()).hexdigest()
    prepare(recipe_on(old, results=(Resource(ID, Digest(digest)),)))
    for other in (Resource(ID, Digest("0" * 64)), Resource(ID), Resource("another", Digest(digest))):
        with pytest.raises(ConstruirError, match="which the job needs as it was, is not here"):
            prepare(recipe_on(old, results=(other,)))


def test_a_job_that_had_no_machine_is_not_run_again(prepare: Prepared, old: BaseImage) -> None:
    with pytest.raises(UsageError, match="had no machine"):
        prepare(msgspec.structs.replace(recipe_on(old), base=None))


def test_only_what_was_uploaded_is_taken_for_it(old: BaseImage, tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(b"an upload")
    again.demand_upload(tmp_path / "upload", recipe_on(old))
    (tmp_path / "upload").write_bytes(b"another")
    with pytest.raises(UsageError, match="is not what was uploaded"):
        again.demand_upload(tmp_path / "upload", recipe_on(old))
    with pytest.raises(MissingError, match=r"there is no .*/nofile; name the file that was uploaded: --upload FILE"):
        again.demand_upload(tmp_path / "nofile", recipe_on(old))
    with pytest.raises(UsageError, match=r"is a directory; pack it: construir pack"):
        again.demand_upload(tmp_path, recipe_on(old))


def test_in_what_the_machine_is_another_one_is_told(old: BaseImage) -> None:
    first = msgspec.structs.replace(recipe_on(old), machine={"accelerator": "kvm", "processor": "A", "cpus": "1"})
    here = msgspec.structs.replace(first, machine={"accelerator": "tcg", "processor": "A"})
    assert first.other_machine(first) == []
    assert first.other_machine(here) == ["accelerator: 'kvm' where it ran first, 'tcg' here"]
