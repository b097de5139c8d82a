"""Which layers go: those not used for longest, never one that a job asks for or another one lies on; and leftovers."""

import os
from datetime import UTC, datetime, timedelta

import pytest

from construir_ftp.appliance import janitor
from construir_ftp.appliance.janitor import Janitor
from construir_ftp.config import JanitorSection, LayersSection
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.layers.gc import collect
from construir_ftp.layers.store import Layer, Store
from construir_ftp.units import Size
from tests.support.records import NOON, put_layer, send

MIB = 2**20
NO_ROOM = Size(1)


def put(
    store: Store, name: str, age_h: float = 0, contents: tuple[str, ...] = (), under: tuple[str, ...] = ()
) -> Layer:
    """A layer of 1 MiB, as the limits see it, used so many hours before NOON."""
    kind = "packages" if contents else "published"
    layer = put_layer(store, name, kind=kind, contents=list(contents), under=list(under))
    used_s = (NOON - timedelta(hours=age_h)).timestamp()
    os.utime(layer.path / "layer.json", (used_s, used_s))
    return layer


def left(store: Store) -> list[str]:
    return [layer.name for layer in store.every()]


def test_layers_not_used_for_longest_go_until_all_together_are_within_the_limit(spool: Spool, store: Store) -> None:
    for age_h, name in enumerate("dabc"):
        put(store, name, age_h)
    assert collect(spool, Size(4 * MIB), NOON) == []
    planned = collect(spool, Size(2 * MIB), NOON, dry_run=True)
    assert left(store) == ["a", "b", "c", "d"]
    assert collect(spool, Size(2 * MIB), NOON) == planned
    assert [name for name, _ in planned] == ["c", "b"]
    assert left(store) == ["a", "d"]


@pytest.mark.parametrize("runs", [False, True])
def test_layer_a_job_asks_for_stays_and_so_do_those_below_it(spool: Spool, store: Store, runs: bool) -> None:
    put(store, "below", 9)
    put(store, "asked", 8, under=("below",))
    put(store, "other", 1)
    send(spool, construir_toml='[dependencies]\nlayers = ["asked"]')
    if runs:
        assert spool.take() is not None
    collect(spool, NO_ROOM, NOON)
    assert left(store) == ["asked", "below"]
    spool.delete(*spool.jobs("running" if runs else "queue"))
    collect(spool, NO_ROOM, NOON)
    assert left(store) == []


def test_layer_of_the_packages_a_job_asks_for_stays(spool: Spool, store: Store) -> None:
    put(store, "packages-1", 9, ("hello:amd64=1", "libc:amd64=2"))
    put(store, "packages-2", 9, ("tree:amd64=1", "libc:amd64=2"))
    # The base image has dpkg: no layer on it ever does.
    send(spool, construir_toml='[dependencies]\npackages = ["hello=1", "dpkg"]')
    collect(spool, NO_ROOM, NOON)
    assert left(store) == ["packages-1"]


def test_layer_goes_after_those_that_lie_on_it(spool: Spool, store: Store) -> None:
    put(store, "below", 9)
    put(store, "upper", 1, under=("below",))
    put(store, "middle", 5)
    assert [name for name, _ in collect(spool, NO_ROOM, NOON)] == ["middle", "upper", "below"]


def test_layer_that_another_one_is_being_made_on_stays(spool: Spool, store: Store) -> None:
    layer = put(store, "below", 9)
    with store.hold([layer]):
        assert collect(spool, NO_ROOM, NOON) == []
    assert left(store) == ["below"]


def test_layer_whose_ground_is_gone_goes_whatever_the_limit(spool: Spool, store: Store) -> None:
    put(store, "upper", under=("below",))
    assert collect(spool, Size(2**40), NOON) == [("upper", "it lies on below, which is gone")]
    assert left(store) == []


def test_current_version_goes_with_its_name_and_an_older_one_without(spool: Spool, store: Store) -> None:
    put(store, "ghc@111111111111", 9)
    put(store, "ghc@222222222222", 1)
    collect(spool, Size(MIB), NOON)
    found = store.find("ghc")
    assert found is not None
    assert (found.name, left(store)) == ("ghc@222222222222", ["ghc@222222222222"])
    collect(spool, NO_ROOM, NOON)
    assert list(store.path.iterdir()) == []


def test_what_interrupted_commands_left_goes_after_a_day(spool: Spool, store: Store) -> None:
    for name in (".draft-x", ".outgoing-x"):
        (store.path / name / "layer").mkdir(parents=True)
    debs = store.path / ".archives" / "0123" / "archives"
    debs.mkdir(parents=True)
    (debs / "hello.deb").write_bytes(b"")
    with store.alone("idle"):
        pass
    tomorrow, in_a_month = (datetime.now(UTC) + timedelta(days=days) for days in (1.5, 31))
    assert collect(spool, NO_ROOM, datetime.now(UTC)) == []
    with store.alone("held"):
        collect(spool, NO_ROOM, tomorrow)
        assert sorted(path.name for path in store.path.iterdir()) == [".archives", ".lock-held"]
        assert (debs / "hello.deb").exists()
        collect(spool, NO_ROOM, in_a_month)
    assert list(debs.iterdir()) == []


def test_janitor_keeps_layers_within_their_limit(spool: Spool, store: Store) -> None:
    put(store, "old")
    Janitor(spool, JanitorSection(), Size(0), LayersSection(max_total=NO_ROOM)).scheduler.run_all()
    assert left(store) == []


@pytest.mark.parametrize("runs", [False, True])
def test_result_that_a_job_needs_is_never_pruned(spool: Spool, runs: bool) -> None:
    needed, other = (Job(spool.state("done") / name) for name in ("20260101T000000Z-0000-a", "20260101T000000Z-0000-b"))
    for job in (needed, other):
        job.path.mkdir()
    send(spool, after=[needed.id])
    if runs:
        assert spool.take() is not None
    limits = JanitorSection(max_results=1, max_total=Size(0))
    assert [job.id for job, _ in janitor.prune(spool, limits, Size(2**60), NOON)] == [other.id]
    assert needed.path.is_dir()
