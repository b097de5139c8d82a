"""Promises of fit: a job goes where it can run, and first where it runs quickest."""

import time
from collections.abc import Iterator

import msgspec
import pytest

from construir_ftp.jobs import inquiry, nodes, request
from construir_ftp.jobs.job import Record, anyone
from construir_ftp.jobs.nodes import Machines, Offered
from construir_ftp.jobs.request import Terms
from construir_ftp.jobs.spool import Spool
from construir_ftp.jobs.status import RunnerReport, RunningJob
from construir_ftp.runner import fit
from construir_ftp.runner.fit import Fit
from tests.support.records import record

GIB = 2**30
ARM = 'base = "bookworm-arm64"'


def offers(architecture: str, *bases: str, memory_bytes: int = GIB) -> Offered:
    terms = Terms(
        timeout_s=60.0,
        idle_timeout_s=60.0,
        cpus=2,
        memory_bytes=memory_bytes,
        image_bytes=GIB,
        bases=bases,
    )
    machines = {base: Machines(digest="", architecture=base.split("-")[1], accelerator="tcg") for base in bases}
    return Offered(
        program="0",
        architecture=architecture,
        processors=2,
        memory_bytes=memory_bytes,
        slots=1,
        default_base="bookworm-amd64",
        bases=machines,
        terms=terms,
    )


def asks(toml: str) -> Record:
    return record(construir_toml=toml)


@pytest.fixture
def served(spool: Spool) -> Iterator[Spool]:
    with spool.lock():
        yield spool


def live(spool: Spool, name: str, offered: Offered, report: RunnerReport = RunnerReport(slots=1)) -> Fit:  # noqa: B008 - it never changes
    """A node that lives, and what it takes."""
    nodes.offer(spool.path, name, offered)
    inquiry.tell(spool, report, name)
    nodes.judge(spool.path, sorted({*nodes.living(spool.path), name} - {"local"}))
    here = Fit(spool, name)
    here.settle(offered)
    return here


def takes(here: Fit, toml: str) -> bool:
    return here.of(anyone)(asks(toml))


def test_appliance_that_is_alone_takes_everything(served: Spool) -> None:
    alone = live(served, "local", offers("amd64", "bookworm-amd64"))
    assert all(takes(alone, toml) for toml in ("", ARM, "no toml"))


def test_node_runs_no_job_on_another_base_image_than_the_fronts(served: Spool) -> None:
    offered = offers("amd64", "bookworm-amd64", "trixie-amd64", memory_bytes=8 * GIB)
    changed = {**offered.bases, "bookworm-amd64": Machines(digest="old", architecture="amd64", accelerator="tcg")}
    old = live(served, "old", msgspec.structs.replace(offered, bases=changed))
    assert takes(old, ""), "there is no front yet that promises another"
    local = live(served, "local", offers("amd64", "bookworm-amd64"))
    assert (takes(local, ""), takes(old, "")) == (True, False)
    assert takes(old, 'base = "trixie-amd64"'), "of which the front has none"
    large = request.read('memory = "4GiB"')
    assert not nodes.suits_any_other(served.path, large, 1)
    live(served, "same", offered)
    assert nodes.suits_any_other(served.path, large, 1)


def test_job_goes_to_the_node_that_has_what_it_asks_for(served: Spool) -> None:
    local = live(served, "local", offers("amd64", "bookworm-amd64"))
    large = live(served, "large", offers("amd64", "bookworm-amd64", "trixie-amd64", memory_bytes=8 * GIB))
    assert (takes(local, ""), takes(large, "")) == (True, True)
    for toml in ('memory = "4GiB"', 'base = "trixie-amd64"', 'accelerator = "tcg"\nmemory = "3GiB"'):
        assert (takes(local, toml), takes(large, toml)) == (False, True)
    assert nodes.suits_any_other(served.path, request.read('memory = "4GiB"'), 1)
    assert not nodes.suits_any_other(served.path, request.read('memory = "9GiB"'), 1)
    nodes.drain(served.path, "large", "")
    assert not nodes.suits_any_other(served.path, request.read('memory = "4GiB"'), 1)


def test_job_that_only_a_node_fits_which_has_gone_waits_for_it_until_it_is_forgotten(served: Spool) -> None:
    local = live(served, "local", offers("amd64", "bookworm-amd64"))
    live(served, "large", offers("amd64", "bookworm-amd64", memory_bytes=8 * GIB))
    nodes.leave(served.path, "large")
    nodes.judge(served.path, [])
    assert (takes(local, 'memory = "4GiB"'), takes(local, "")) == (False, True)
    waiting = served.receive()
    waiting.upload.touch()
    queued = served.enqueue(served.stage(waiting, asks('memory = "4GiB"')))
    told = inquiry.job(served, queued.id)
    assert told is not None
    assert told.why == "no node that takes jobs has what it asks for"
    nodes.forget(served.path, "large")
    assert takes(local, 'memory = "4GiB"')


def test_where_every_node_is_drained_status_says_so(served: Spool) -> None:
    live(served, "local", offers("amd64", "bookworm-amd64"))
    nodes.drain(served.path, "local", "new memory")
    waiting = served.receive()
    waiting.upload.touch()
    served.enqueue(served.stage(waiting, record()))
    assert inquiry.summary(served, 0).why == "no job is taken at the moment: every node is drained: new memory"


def test_job_that_fits_nowhere_is_told_so_by_the_appliance(served: Spool) -> None:
    local = live(served, "local", offers("amd64", "bookworm-amd64"))
    far = live(served, "far", offers("amd64", "bookworm-amd64"))
    for toml in (ARM, "no toml", 'architecture = "arm64"', 'accelerator = "kvm"'):
        assert (takes(local, toml), takes(far, toml)) == (True, False)
    assert (local.of(anyone)(None), far.of(anyone)(None)) == (True, False)


def test_job_of_another_architecture_is_left_to_a_native_node_with_a_free_slot_but_not_for_ever(
    served: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ("bookworm-amd64", "bookworm-arm64")
    local = live(served, "local", offers("amd64", *both))
    assert takes(local, ARM)
    native = live(served, "arm", offers("arm64", *both))
    assert (takes(local, ARM), takes(native, ARM)) == (False, True)
    assert (takes(local, ""), takes(native, "")) == (True, False)
    later_s = time.monotonic() + fit._LEFT_S + 1
    monkeypatch.setattr(time, "monotonic", lambda: later_s)
    assert takes(local, ARM)


def test_job_of_another_architecture_is_emulated_where_the_native_node_is_busy(served: Spool) -> None:
    local = live(served, "local", offers("amd64", "bookworm-amd64", "bookworm-arm64"))
    busy = RunnerReport(slots=1, busy=(RunningJob("a", None),))
    live(served, "arm", offers("arm64", "bookworm-arm64"), busy)
    assert takes(local, ARM)
