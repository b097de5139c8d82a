"""A key that can't be used is told by one kind of error, whatever is the matter with it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from construir_ftp.jobs.spool import MAX_ATTEMPTS, Job, Spool
from construir_ftp.runner import worker
from construir_ftp.trust.seal import SigningError
from tests.support import signed


def _replace(path: Path) -> None:
    path.write_bytes(signed.seal(path.parents[2] / "other").key.path.read_bytes())


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (Path.unlink, "No such file or directory"),
        (lambda path: path.write_bytes(b""), "has changed"),
        (_replace, "has changed"),
    ],
    ids=["gone", "emptied", "another"],
)
def test_a_key_that_was_spoiled_signs_nothing_until_it_is_back(
    spool: Spool, spoil: Callable[[Path], object], why: str
) -> None:
    seal = signed.seal(spool.path)
    content = seal.key.path.read_bytes()
    spoil(seal.key.path)
    for use in (seal.demand_usable, lambda: seal.signature(b"")):
        with pytest.raises(SigningError, match=f"results can't be signed: .*{why}"):
            use()
    seal.key.path.write_bytes(content)
    seal.demand_usable()
    assert seal.signature(b"").startswith(b"-----BEGIN SSH SIGNATURE-----")


def test_openssl_that_fails_or_is_missing_is_told_so(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal = signed.seal(spool.path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SigningError, match="results can't be signed: openssl: not installed"):
        seal.signature(b"")
    (tmp_path / "openssl").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "openssl").chmod(0o755)
    with pytest.raises(SigningError, match="results can't be signed: exit status 3 from: openssl"):
        seal.signature(b"")


def test_that_nothing_can_be_signed_is_known_before_a_job_is_run(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of the key is as it was, and openssl alone fails."""
    seal = signed.seal(spool.path)
    seal.demand_usable()
    with monkeypatch.context() as without:
        without.setenv("PATH", str(tmp_path))
        with pytest.raises(SigningError, match="openssl: not installed"):
            seal.signature(b"")
        for _ in range(2):
            with pytest.raises(SigningError, match="results can't be signed: openssl: not installed"):
                seal.demand_usable()
    seal.demand_usable()


@pytest.mark.parametrize(("attempts", "left"), [(0, 0), (1, 0), (MAX_ATTEMPTS, MAX_ATTEMPTS)])
def test_a_job_whose_end_can_not_be_signed_goes_back_and_is_not_run_once_too_often(
    spool: Spool, attempts: int, left: int
) -> None:
    spool.claims.begin()
    job = Job(spool.claims.path / signed.ID)
    job.path.mkdir()
    for _ in range(attempts):
        job.count_attempt()
    worker.give_back(spool, job)
    assert spool.names("running") == []
    assert Job(spool.state("queue") / signed.ID).attempts() == left


def test_what_a_killed_maker_of_the_key_left_goes_with_the_next_start(spool: Spool) -> None:
    """Killed after the key had its name, it leaves another name of it."""
    key = signed.seal(spool.path).key.path
    left = key.with_name(f".{key.name}.0123abcd")
    os.link(key, left)
    os.utime(left, (1, 1))
    signed.seal(spool.path)
    assert not left.exists()
    assert key.exists()
