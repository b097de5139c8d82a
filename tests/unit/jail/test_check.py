"""What is said of the jail is what the kernel says."""

import os
from collections.abc import Iterator

import pytest

from construir_ftp.errors import ConstruirError
from construir_ftp.jail import check as jailcheck
from construir_ftp.jail import jail, seccomp
from construir_ftp.jail.bubblewrap import Means
from construir_ftp.jail.cell import Cell, Limits
from construir_ftp.jail.jail import Jail
from tests.support.prison import bare, nothing_left, run


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    with nothing_left():
        yield


def test_every_part_is_in_force_here_but_those_that_are_said_not_to_be() -> None:
    parts = {part.name: part for part in jailcheck.in_force(jail.host())}
    assert jailcheck.missing(list(parts.values())) == []
    assert all(part.why for part in parts.values())
    assert parts["user namespace"].in_force
    assert parts["uid of its own"].in_force == (os.geteuid() == 0)
    jailcheck.demand(jail.host())


@pytest.mark.root("only root has uids to give")
def test_without_a_user_namespace_roots_jail_is_still_complete() -> None:
    prison = Jail(Means(walls="root-no-userns", uids=jail.UIDS, filter=seccomp.program(), reason="none to be had"))
    parts = jailcheck.in_force(prison)
    assert jailcheck.missing(parts) == []
    assert [part for part in parts if part.name == "user namespace"] == [
        jailcheck.JailPart("user namespace", False, "none to be had", required=False)
    ]


def test_without_walls_the_rest_still_holds_and_the_check_is_honest() -> None:
    status, said = run(
        bare(), Cell(limits=Limits(open_files=20)), ["sh", "-c", "ulimit -n; grep NoNewPrivs /proc/self/status"]
    )
    assert (status, said.split()) == (0, ["20", "NoNewPrivs:", "1"])
    lacking = {part.name for part in jailcheck.missing(jailcheck.in_force(bare()))}
    assert {"network namespace", "process namespace", "only its own files", "system call filter"} <= lacking
    assert "no new privileges" not in lacking
    with pytest.raises(ConstruirError, match=r"not complete: .*network namespace: bwrap: not installed"):
        jailcheck.demand(bare())
