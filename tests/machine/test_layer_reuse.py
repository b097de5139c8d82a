"""What a layer is called, which one another is made on, and that a package is fetched once."""

import socket
from pathlib import Path

import msgspec
import pytest

from construir_ftp.config import Config
from construir_ftp.errors import ConstruirError
from construir_ftp.image.baseimage import BaseImage
from construir_ftp.jobs.request import Dependencies, Wishes
from construir_ftp.jobs.spool import Spool
from construir_ftp.layers import apt
from construir_ftp.layers.apt import Archive, Package, Plan
from construir_ftp.layers.build import RECIPE, Workshop
from construir_ftp.layers.resolver import DependencyError, Offer
from construir_ftp.layers.store import ARCHIVES, Layer, Store
from construir_ftp.machine import disks, uml
from construir_ftp.machine.shape import Shape
from construir_ftp.runner.allocation import Allocation
from tests.support import machines
from tests.support.debarchive import DebArchive
from tests.support.records import put_layer

MIB = 2**20


def plan(**installed_mib: int) -> Plan:
    """Packages by their names, and so large."""
    packages = [
        Package(name=name, version="1", architecture="all", file=name, download_bytes=1, installed_bytes=size_mib * MIB)
        for name, size_mib in installed_mib.items()
    ]
    return Plan(tuple(packages), ())


def put(store: Store, base: str, of: Plan, under: tuple[str, ...] = ()) -> Layer:
    """A layer of these packages, whatever is in it."""
    name = f"packages-{'-'.join(package.name for package in of.packages)}-{base[-4:]}"
    return put_layer(
        store,
        name,
        kind="packages",
        base=base,
        contents=of.versions(),
        under=list(under),
        installed_bytes=of.installed_bytes,
    )


def reused(store: Store, shape: Shape, wanted: Plan) -> str | None:
    found = Workshop(store, Archive(store.path, shape.base), shape, 60)._largest_subset(wanted)
    return found.name if found else None


def test_layer_is_made_on_the_largest_subset_that_has_half_of_it(store: Store, shape: Shape) -> None:
    base = shape.base.manifest.digest()
    wanted = plan(gcc=60, make=2, cmake=30, git=8)
    put(store, base, plan(make=2, git=8))
    assert reused(store, shape, wanted) is None, "a machine more would cost more than what it saves"
    put(store, base, plan(gcc=60))
    larger = put(store, base, plan(gcc=60, make=2))
    assert reused(store, shape, wanted) == larger.name
    put(store, base, plan(gcc=60, make=2, cmake=30, tree=1))
    put(store, "sha256:another", plan(gcc=60, make=2, cmake=30))
    assert reused(store, shape, wanted) == larger.name, "one has more than is wanted, one is of another base image"
    put(store, base, plan(gcc=60, cmake=30), under=("a", "b", "c", "d", "e"))
    assert reused(store, shape, wanted) == larger.name, "with one more on it there would be too many"


@pytest.mark.parametrize("kind", machines.KINDS, ids=["usual", "user-mode"])
def test_more_layers_than_a_machine_has_places_for_are_an_error_that_says_so(
    spool: Spool, store: Store, images: Path, kind: str
) -> None:
    shape = machines.of_kind(kind, images)
    places = uml.MOST_READ_ONLY if kind else disks.MOST_READ_ONLY
    below = [put(store, "sha256:some", plan(**{f"p{number}": 1})).name for number in range(places)]
    wanted = Wishes(dependencies=Dependencies(layers=(put(store, "sha256:some", plan(top=1), tuple(below)).name,)))
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(DependencyError, match=f"{places + 1} layers; a machine has places for {places}"):
        Allocation.settle(Offer.of(spool, Config()), shape, wanted, ours)


def test_layer_is_named_by_what_is_in_it_on_which_base_by_which_recipe(base: BaseImage) -> None:
    first, swapped, other = plan(gcc=1, make=2), plan(make=2, gcc=1), plan(gcc=1, make=2, tree=1)
    name = apt.name_of(base, first, RECIPE)
    assert apt.name_of(base, swapped, RECIPE) == name
    newer = msgspec.structs.replace(first.packages[0], version="2")
    changed = [
        apt.name_of(base, other, RECIPE),
        apt.name_of(base, Plan((newer, *first.packages[1:]), ()), RECIPE),
        apt.name_of(base, first, RECIPE + 1),
        apt.name_of(
            msgspec.structs.replace(base, manifest=msgspec.structs.replace(base.manifest, architecture="arm64")),
            first,
            RECIPE,
        ),
    ]
    assert len({name, *changed}) == 5


def served(place: Path, spool: Spool, base: BaseImage) -> DebArchive:
    """An archive that has one package, `wanted`, and that the spool's layers are made of."""
    ours = DebArchive(place / "archive")
    ours.add("wanted")
    ours.serve(spool.path, base)
    return ours


def test_package_that_was_fetched_once_comes_out_of_the_cache(spool: Spool, base: BaseImage, tmp_path: Path) -> None:
    served(tmp_path, spool, base)
    packages = Archive(spool.state("layers") / ARCHIVES, base)
    packages.refresh()
    wanted = packages.resolve(("wanted",))
    (fetched,) = packages.fetch(wanted)
    (tmp_path / "archive/wanted_1.0_all.deb").unlink()
    assert packages.fetch(wanted) == [fetched]


def test_archive_of_a_spool_that_was_moved_is_found_where_it_is_now(
    spool: Spool, base: BaseImage, tmp_path: Path
) -> None:
    ours = served(tmp_path, spool, base)
    Archive(spool.state("layers") / ARCHIVES, base).refresh()
    moved = Spool.prepare(spool.path.rename(tmp_path / "moved"))
    ours.serve(moved.path, base)  # its sources are not those of the base image
    packages = Archive(moved.state("layers") / ARCHIVES, base)
    packages.refresh()
    assert packages.resolve(("wanted",)).versions() == ["wanted:all=1.0"]


def test_package_that_is_not_what_its_archive_has_signed_is_not_used(
    spool: Spool, base: BaseImage, tmp_path: Path
) -> None:
    served(tmp_path, spool, base)
    package = tmp_path / "archive/wanted_1.0_all.deb"
    package.write_bytes(package.read_bytes()[:-1] + b"!")
    packages = Archive(spool.state("layers") / ARCHIVES, base)
    packages.refresh()
    with pytest.raises(ConstruirError, match="Hash Sum mismatch"):
        packages.fetch(packages.resolve(("wanted",)))
