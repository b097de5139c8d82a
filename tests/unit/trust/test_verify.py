"""A result that is not as it was signed is noticed, whatever was done to it."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from construir_ftp.errors import DamagedError, MissingError, UntrustedError
from construir_ftp.jobs.spool import Spool
from construir_ftp.trust import dsse, statement, verify
from construir_ftp.trust.keys import PublicKey
from construir_ftp.trust.seal import Seal
from tests.support import signed
from tests.support.ordinaryuser import UID

OTHER_ID = "20261129T120001Z-0000-other"
NOTICED = (DamagedError, MissingError, UntrustedError)


@pytest.fixture
def other(spool: Spool, seal: Seal) -> Path:
    """Another result of the same appliance, with files of the same names."""
    return signed.result(spool, seal, OTHER_ID, made={"greet.deb": b"other\n", "greet.txt": b"other\n"})


def files_of(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*") if path.is_file())


@contextmanager
def flipped(path: Path, at: int) -> Iterator[None]:
    """Within, one bit of a byte of a file is another."""
    with path.open("r+b", buffering=0) as file:
        (before,) = os.pread(file.fileno(), 1, at)
        os.pwrite(file.fileno(), bytes([before ^ 1]), at)
        yield
        os.pwrite(file.fileno(), bytes([before]), at)


def test_a_result_as_it_was_signed_is_proved(done: Path, seal: Seal) -> None:
    proof = verify.check(done, [seal.key.public])
    assert proof.result.id == signed.ID
    assert proof.builder == "construir://build.example.org/no-machine/no-whole-jail"
    assert {"greet.img.zst", "result.json", "artifacts/greet.deb", "provenance.intoto.jsonl"} <= set(proof.files)
    assert proof.missing == ()


@pytest.mark.long
def test_every_byte_that_is_flipped_is_noticed(done: Path, seal: Seal) -> None:
    unnoticed, tried = [], 0
    for path in files_of(done):
        for at in range(path.stat().st_size):
            tried += 1
            with flipped(path, at):
                try:
                    verify.check(done, [seal.key.public])
                except NOTICED:
                    continue
                unnoticed.append(f"{path.relative_to(done)}, byte {at}")
    assert unnoticed == []
    assert tried > 4000
    verify.check(done, [seal.key.public])


@pytest.mark.parametrize("name", ["added", "artifacts/added", ".hidden", "artifacts/.greet.txt.part"])
def test_a_file_that_was_added_is_noticed(done: Path, seal: Seal, name: str) -> None:
    (done / name).write_bytes(b"")
    with pytest.raises(DamagedError, match=r"no part of the result"):
        verify.check(done, [seal.key.public])


@pytest.mark.parametrize(("name", "deep"), [("d", 2000), ("d" * 200, 30)], ids=["deep", "long"])
def test_a_file_that_was_added_is_noticed_however_deep_it_lies(done: Path, seal: Seal, name: str, deep: int) -> None:
    """Deeper than Python's stack, or than a path may be long (PATH_MAX): a copy by tar or rsync can bring either."""
    place = os.open(done, os.O_RDONLY)
    for _ in range(deep):
        os.mkdir(name, dir_fd=place)
        below = os.open(name, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = below
    os.close(os.open("added", os.O_CREAT, dir_fd=place))
    os.close(place)
    try:
        with pytest.raises(DamagedError, match=r"is no part of the result|can't be looked into: File name too long"):
            verify.check(done, [seal.key.public])
        assert verify.check(done, [seal.key.public], is_all=False).missing == ()
    finally:
        subprocess.run(["rm", "-r", done / name], check=True)  # shutil.rmtree has the same stack


@pytest.mark.root("only root can become another user")
def test_a_directory_that_cant_be_looked_into_hides_nothing(spool: Spool, done: Path, seal: Seal) -> None:
    hidden = done / "hidden"
    hidden.mkdir(mode=0o700)
    (hidden / "added").write_bytes(b"")
    with as_nobody(spool.path), pytest.raises(DamagedError, match="hidden/ can't be looked into: Permission denied"):
        verify.check(done, [seal.key.public])
    with as_nobody(spool.path):
        verify.check(done, [seal.key.public], is_all=False)


@contextmanager
def as_nobody(place: Path) -> Iterator[None]:
    """Within, this thread is another user, whom all directories above `place` let through."""
    above = {path: path.stat().st_mode for path in (place, *place.parents)}
    for path, mode in above.items():
        path.chmod(mode | 0o011)
    os.seteuid(UID)
    try:
        yield
    finally:
        os.seteuid(0)
        for path, mode in above.items():
            path.chmod(mode)


def test_any_file_that_was_removed_is_noticed(done: Path, seal: Seal) -> None:
    for path in files_of(done):
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(NOTICED):
            verify.check(done, [seal.key.public])
        path.write_bytes(content)
    verify.check(done, [seal.key.public])


def test_a_file_that_has_not_come_whole_is_one_to_fetch_again(done: Path, seal: Seal) -> None:
    (done / "output.log").rename(done / ".output.log.part")
    with pytest.raises(DamagedError, match=r"output\.log is missing; fetch it again"):
        verify.check(done, [seal.key.public])


def test_any_file_that_was_renamed_is_noticed(done: Path, seal: Seal) -> None:
    for path in files_of(done):
        path.rename(path.with_name("renamed"))
        with pytest.raises(NOTICED):
            verify.check(done, [seal.key.public])
        path.with_name("renamed").rename(path)


def test_files_of_a_result_that_were_exchanged_are_noticed(done: Path, seal: Seal) -> None:
    one, two = done / "artifacts/greet.deb", done / "artifacts/greet.txt"
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    with pytest.raises(DamagedError, match="is not what was signed"):
        verify.check(done, [seal.key.public])


def test_any_file_of_another_result_in_its_place_is_noticed(done: Path, other: Path, seal: Seal) -> None:
    for path in files_of(done):
        content, theirs = path.read_bytes(), (other / path.relative_to(done)).read_bytes()
        if content == theirs:
            continue
        path.write_bytes(theirs)
        with pytest.raises(NOTICED):
            verify.check(done, [seal.key.public])
        path.write_bytes(content)


@pytest.mark.parametrize("make", [Path.symlink_to, lambda path, target: path.mkdir()])
def test_what_is_no_file_is_noticed(done: Path, seal: Seal, tmp_path: Path, make: Callable[..., None]) -> None:
    content = done / "output.log"
    shutil.copy(content, tmp_path / "copy")
    content.unlink()
    make(content, tmp_path / "copy")
    with pytest.raises(DamagedError):
        verify.check(done, [seal.key.public])


def test_a_key_that_is_not_known_proves_nothing(done: Path, spool: Spool, tmp_path: Path) -> None:
    with pytest.raises(UntrustedError, match="which is not known here"):
        verify.check(done, [])
    with pytest.raises(UntrustedError, match="which is not known here; known: SHA256:"):
        verify.check(done, [PublicKey(bytes(32))])
    stranger = signed.seal(tmp_path / "stranger")
    (done / "SHA256SUMS.sig").write_bytes(stranger.signature((done / "SHA256SUMS").read_bytes()))
    with pytest.raises(UntrustedError):
        verify.check(done, [signed.seal(spool.path).key.public])


def test_a_provenance_of_another_result_is_noticed_although_it_is_signed(done: Path, other: Path, seal: Seal) -> None:
    """What a confused or lying signer might put together."""
    (envelope,) = dsse.parse((other / "provenance.intoto.jsonl").read_bytes(), "it")
    with pytest.raises(DamagedError, match="is of another result: its files, its job"):
        verify._compare(
            statement.read(envelope, "it"), verify._result(done), verify._signed_list(done, [seal.key.public], ())[0]
        )


def test_a_provenance_that_other_programs_would_read_otherwise_is_noticed(done: Path, seal: Seal) -> None:
    told = verify.check(done, [seal.key.public]).provenance
    listed = verify._signed_list(done, [seal.key.public], ())[0]
    result = verify._result(done)
    verify._compare(told, result, listed)
    other = msgspec.structs.replace(told.subject[0], digest=statement.Digest("0" * 64))
    twice = msgspec.structs.replace(told, subject=(other, *told.subject))
    with pytest.raises(DamagedError, match=r"is of another result: its files$"):
        verify._compare(twice, result, listed)
    with pytest.raises(DamagedError, match=r"is of another result: its kind$"):
        verify._compare(msgspec.structs.replace(told, predicate_type="urn:other"), result, listed)
    line = (done / "provenance.intoto.jsonl").read_bytes()
    with pytest.raises(DamagedError, match="expected one statement, and there are 2"):
        dsse.only(line * 2, "it")


def test_of_a_part_of_a_result_the_rest_is_not_looked_at(done: Path, seal: Seal, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.mkdir()
    shutil.copy(done / "output.log", part)
    (part / "mine").write_text("not of the result")
    proof = verify.check(part, [seal.key.public], evidence=done, is_all=False)
    assert proof.files == ("output.log",)
    assert "greet.img.zst" in proof.missing
    (part / "output.log").write_text("hellO\n")
    with pytest.raises(DamagedError, match=r"output\.log is not what was signed"):
        verify.check(part, [seal.key.public], evidence=done, is_all=False)


def test_a_job_that_failed_has_a_statement_that_nobody_takes_for_success(spool: Spool, seal: Seal) -> None:
    place = signed.result(spool, seal, status="failed")
    told = verify.check(place, [seal.key.public]).provenance.predicate
    assert told["construir_status"] == "failed"
    assert told["buildDefinition"]["buildType"] == "urn:construir:job-without-success:v1"


def test_a_job_that_left_nothing_has_a_statement(spool: Spool, seal: Seal) -> None:
    place = signed.result(spool, seal, made={})
    told = json.loads(dsse.parse((place / "provenance.intoto.jsonl").read_bytes(), "it")[0].payload)
    assert [one["name"] for one in told["subject"]] == ["greet.img.zst"]
    assert {one["name"] for one in told["predicate"]["runDetails"]["byproducts"]} == {
        "output.log",
        "console.log",
        "construir.toml",
        "job.json",
        "result.json",
    }
