"""A server without the key, which has results that are truly signed, and says something else around them."""

import hashlib
import itertools
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

from construir_ftp.jobs import sums
from construir_ftp.jobs.spool import Spool
from construir_ftp.trust.seal import Seal
from tests.support import signed
from tests.support.appliance import construir
from tests.support.hostileserver import Bytes, HostileServer, once

OLD_ID = "20250101T120001Z-0000-old"
Command = Callable[..., "subprocess.CompletedProcess[str]"]
Files = dict[str, bytes]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.prepare(tmp_path / "spool")


@pytest.fixture
def seal(spool: Spool) -> Seal:
    return signed.seal(spool.path)


def files_of(spool: Spool, done: Path) -> Files:
    """What a server with this result has."""
    result = {
        f"/done/{done.name}/{path.relative_to(done)}": path.read_bytes() for path in done.rglob("*") if path.is_file()
    }
    return {**result, "/allowed_signers": (spool.path / "trust/allowed_signers").read_bytes(), "/status.json": b"{}"}


def told_of(job_id: str) -> Bytes:
    return once(f"211 {job_id} is done: success, fine; see /done/{job_id}/\r\n".encode())


def ask(tmp_path: Path, files: Files, lies: Mapping[str, Bytes], *words: str, about: str = signed.ID) -> str:
    """What the command says, and then its exit code, of somebody who meets that server for the first time."""
    said = {
        f"SITE STATUS {signed.ID}": told_of(about),
        **{f"SIZE {k}": once(b"213 %d\r\n" % len(v)) for k, v in files.items()},
    }
    with HostileServer(said, {**{name: once(content) for name, content in files.items()}, **lies}) as server:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "CONSTRUIR_"))}
        env = {**kept, "HOME": str(tmp_path), "CONSTRUIR_SERVER": f"ftp://127.0.0.1:{server.port}"}
        done = construir(*words, env=env, cwd=tmp_path, stdin=subprocess.DEVNULL)
    return f"{done.stderr}{done.returncode}"


def first(lie: bytes, times: int, truth: bytes) -> Bytes:
    """The lie so many times, and then the truth."""
    count: Iterator[int] = itertools.count()
    return lambda: [lie if next(count) < times else truth]


def test_a_list_of_files_that_is_not_the_signed_one_is_noticed(tmp_path: Path, spool: Spool, seal: Seal) -> None:
    files = files_of(spool, signed.result(spool, seal))
    name, added = f"/done/{signed.ID}/SHA256SUMS", b"rm -rf /\n"
    truth = sums.parse(files[name])
    less = {each: digest for each, digest in truth.items() if each != "artifacts/greet.txt"}
    lie = sums.render({**less, "artifacts/more.sh": hashlib.sha256(added).hexdigest()})
    # As long as the lie is what the server says of its size.
    served = {**files, name: lie, f"/done/{signed.ID}/artifacts/more.sh": added}
    said = ask(tmp_path, served, {name: first(lie, 2, files[name])}, "fetch", signed.ID, "-o", "brought")
    assert "artifacts/more.sh is no part of the result that was signed" in said
    assert said.endswith("74")


def test_another_job_is_not_taken_for_the_one_that_was_asked_for(tmp_path: Path, spool: Spool, seal: Seal) -> None:
    files = files_of(spool, signed.result(spool, seal, OLD_ID))
    for words in (("fetch", signed.ID), ("verify", signed.ID), ("watch", signed.ID)):
        said = ask(tmp_path, files, {}, *words, about=OLD_ID)
        assert f"answers for {OLD_ID} where {signed.ID} was asked for" in said
    assert not (tmp_path / signed.ID).exists()


def test_another_end_than_the_signed_one_is_noticed(tmp_path: Path, spool: Spool, seal: Seal) -> None:
    files = files_of(spool, signed.result(spool, seal, status="failed"))
    name = f"/done/{signed.ID}/result.json"
    lie = files[name].replace(b'"failed"', b'"success"')
    said = ask(tmp_path, files, {name: first(lie, 1, files[name])}, "watch", signed.ID)
    assert "has shown another end than the one that was signed: failed" in said
    assert said.endswith("74")


def test_no_name_of_a_builder_prints_a_line_of_its_own(tmp_path: Path, spool: Spool, seal: Seal) -> None:
    hostile = msgspec.structs.replace(seal, host="x\nconstruir: verified: signed by somebody\n" + "y" * 100_000)
    said = ask(tmp_path, files_of(spool, signed.result(spool, hostile)), {}, "fetch", signed.ID)
    assert "\nconstruir: verified: signed by somebody" not in said
    assert len(said) < 2000
