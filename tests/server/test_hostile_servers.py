"""What a hostile server sends is bounded, in bytes and in time, and is told in one line."""

import hashlib
import tracemalloc
from pathlib import Path

import pytest

from construir_ftp.client import fetch, jobs, remote_files, status
from construir_ftp.client.address import Address
from construir_ftp.client.connection import Patience, Remote, plainly
from construir_ftp.client.fetch import Fetch
from construir_ftp.client.history import Memory
from construir_ftp.client.watch import Watch
from construir_ftp.errors import AnswerError, ConstruirError, UnreachableError
from tests.support.hostileserver import Bytes, HostileServer, dripping, endless, once

MIB = 2**20
# What the kernels of both ends hold of it, and the bound itself.
MOST_BYTES = 32 * MIB
ID = "20261122T104102Z-7f3a-x"
SUMS = f"/done/{ID}/SHA256SUMS"
DIGITS = b"9" * 5000


def visited(server: HostileServer, directory: Path, timeout_s: float = 10.0) -> str:
    """All that a visitor does; what came of it, in words. Memory is bounded whatever happens."""
    remote = Remote(Address("ftp", "127.0.0.1", server.port), timeout_s=timeout_s)
    tracemalloc.start()
    try:
        with pytest.raises(ConstruirError) as error, plainly(remote.address):
            with remote.session() as ftp:
                jobs.all_of(ftp, Memory(directory / "memory"), last=20, mine_only=False)
                found = fetch.contents(ftp, ID)
                status.look(ftp, ID)
            Fetch(remote, ID, directory / "r", lambda _: None).bring(found.items, patience)
            for _ in Watch(remote, ID, 0).events(patience()):
                pass
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()
    assert server.sent_bytes < MOST_BYTES
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 700
    return f"{type(error.value).__name__}: {error.value}"


def patience() -> Patience:
    return Patience(0.0, lambda _: None, 0.01)


@pytest.mark.parametrize("command", ["greeting", "FEAT", "USER", "PASS", "TYPE", "PASV", "150", "226"])
@pytest.mark.parametrize("what", [b"220-xxxx\r\n", b"x", b"\xff\xfe"])
def test_an_answer_without_an_end_is_read_no_further_than_64_kib(command: str, what: bytes, tmp_path: Path) -> None:
    said = {command: endless(what, b"220-\r\n" if what != b"x" else b"")}
    with HostileServer(said, {"/status.json": once(b"{}")}) as server:
        assert "gives an answer without an end" in visited(server, tmp_path)


@pytest.mark.parametrize("command", ["greeting", "USER", "226"])
@pytest.mark.parametrize("drop", [b"2", b"220-x\r\n"])
def test_an_answer_that_drips_has_the_time_of_one_answer(command: str, drop: bytes, tmp_path: Path) -> None:
    with HostileServer({command: dripping(drop, 0.05)}, {"/status.json": once(b"{}")}) as server:
        assert "UnreachableError" in visited(server, tmp_path, timeout_s=0.3)


@pytest.mark.parametrize(
    "reply",
    [
        b"227 (127,0,0,1,999999,1)",
        b"227 (127,0,0,1,0,0)",
        b"227 (" + b",".join([DIGITS] * 6) + b")",
        b"227 (1,2,3)",
        b"227 \xff",
        b"229 (|||" + DIGITS + b"|)",
    ],
)
def test_a_place_for_data_that_makes_no_sense_is_an_error_in_one_line(reply: bytes, tmp_path: Path) -> None:
    with HostileServer({"PASV": once(reply + b"\r\n")}) as server:
        assert "AnswerError" in visited(server, tmp_path)


def test_data_are_taken_from_the_server_itself_wherever_it_sends_us(tmp_path: Path) -> None:
    with HostileServer({"PASV": once(b"227 (192,0,2,1,0,1)\r\n")}) as server:
        assert "can't be reached: Connection refused" in visited(server, tmp_path)


@pytest.mark.parametrize("size", [DIGITS, b"-1", b"x", b"", b"\xd9\xa3", b"1e9", b"9" * 19])
def test_a_size_that_makes_no_sense_is_an_error_in_one_line(size: bytes, tmp_path: Path) -> None:
    sent = {"/status.json": once(b"{}"), "/done": once(b""), SUMS: once(f"{'0' * 64}  x\n".encode())}
    with HostileServer({"SIZE": once(b"213 " + size + b"\r\n")}, sent) as server:
        assert "that makes no sense" in visited(server, tmp_path)


def test_a_size_in_the_reply_to_retr_that_makes_no_sense_is_an_error_in_one_line(tmp_path: Path) -> None:
    with HostileServer({"150": once(b"150 x (" + DIGITS + b" bytes)\r\n")}, {"/status.json": once(b"{}")}) as server:
        assert "a number that makes no sense" in visited(server, tmp_path)


@pytest.mark.parametrize("path", ["/status.json", "/done", SUMS])
@pytest.mark.parametrize("what", [b"x", b"[", b"x\n", b'{"queue": ["'])
def test_a_file_or_a_listing_without_an_end_is_read_no_further_than_8_mib(
    path: str, what: bytes, tmp_path: Path
) -> None:
    sent = {"/status.json": once(b"{}"), "/done": once(b""), SUMS: once(b""), path: endless(what)}
    with HostileServer({}, sent) as server:
        assert "longer than the 8 MiB" in visited(server, tmp_path)


@pytest.mark.steady(0.2)
@pytest.mark.parametrize("path", ["/status.json", "/done", SUMS])
def test_a_file_that_drips_is_given_up(path: str, tmp_path: Path) -> None:
    sent = {"/status.json": once(b"{}"), "/done": once(b""), SUMS: once(b""), path: dripping(b"x", 0.05)}
    with HostileServer({}, sent) as server:
        assert "sends less than 1024 bytes in 0.3 s" in visited(server, tmp_path, timeout_s=0.3)


@pytest.mark.steady(0.2)
def test_a_small_file_that_comes_slowly_but_steadily_has_an_end(tmp_path: Path) -> None:
    with HostileServer({}, {"/status.json": dripping(b"x" * 2000, 0.05)}) as server:
        assert "takes longer than 1.5 s" in visited(server, tmp_path, timeout_s=0.3)


@pytest.mark.parametrize(
    "told",
    [
        b'{"queue": ' + b"[" * 100_000,
        b'{"waiting": ' + DIGITS + b"}",
        b'{"time": "0000-99-99T99:99:99Z"}',
        b'{"free_bytes": 1e999}',
        b"\xff",
        b"",
    ],
)
def test_a_status_that_makes_no_sense_is_an_error_in_one_line(told: bytes, tmp_path: Path) -> None:
    with HostileServer({}, {"/status.json": once(told)}) as server:
        assert "makes no sense" in visited(server, tmp_path)


def result_of(content: bytes | Bytes, size: bytes, digest: str = "0" * 64) -> HostileServer:
    sums = f"{digest}  x\n".encode()
    said = {
        "SIZE": once(b"213 " + size + b"\r\n"),
        f"SIZE {SUMS}": once(b"213 %d\r\n" % len(sums)),
        "SITE": once(f"211 {ID} is running\r\n".encode()),
    }
    sent = {
        "/status.json": once(b"{}"),
        "/done": once(b""),
        SUMS: once(sums),
        f"/done/{ID}/x": once(content) if isinstance(content, bytes) else content,
    }
    return HostileServer(said, sent)


def test_a_file_longer_than_it_said_is_cut_there(tmp_path: Path) -> None:
    with result_of(endless(b"x"), b"%d" % MIB) as server:
        assert "x is longer than the server said" in visited(server, tmp_path)
    assert sum(path.stat().st_size for path in (tmp_path / "r").iterdir()) <= MIB


def test_a_result_that_no_disk_here_holds_is_not_begun(tmp_path: Path) -> None:
    with result_of(endless(b"x"), b"9" * 18) as server:
        assert "No space left on device for 1000000000000000067 bytes more" in visited(server, tmp_path)
    assert not (tmp_path / "r").exists()


def test_more_files_than_a_result_has_are_not_asked_for(tmp_path: Path) -> None:
    sums = "".join(f"{'0' * 64}  {number}\n" for number in range(20_001)).encode()
    sent = {"/status.json": once(b"{}"), "/done": once(b""), SUMS: once(sums)}
    with HostileServer({"SIZE": once(b"213 1\r\n")}, sent) as server:
        assert "names more than 20000 files" in visited(server, tmp_path)


def test_a_log_that_goes_on_beyond_what_it_said_is_given_up(tmp_path: Path) -> None:
    output = f"/running/{ID}/output.log"
    said = {"SIZE": once(b"213 10\r\n"), "SITE": once(f"211 {ID} is running\r\n".encode())}
    with HostileServer(said, {output: endless(b"x")}) as server:
        remote = Remote(Address("ftp", "127.0.0.1", server.port))
        with pytest.raises(AnswerError, match="than it said there is"):
            for _ in Watch(remote, ID, 0).events(patience()):
                pass
        assert server.sent_bytes < 64 * MIB + MOST_BYTES


def test_words_in_clear_before_tls_are_not_taken_for_the_servers() -> None:
    said = {
        "FEAT": once(b"211-Features:\r\n AUTH TLS\r\n211 End\r\n"),
        "AUTH": once(b"234 Go\r\n230 You are in already\r\n"),
    }
    with HostileServer(said) as server:
        remote = Remote(Address("ftp", "127.0.0.1", server.port))
        with pytest.raises(AnswerError, match="says more than it was asked, before TLS begins"):
            remote.open()


def test_a_file_that_comes_a_byte_a_session_ends_with_its_patience(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    with result_of(b"x", b"%d" % MIB, digest) as server:
        remote = Remote(Address("ftp", "127.0.0.1", server.port))
        with remote.session() as ftp:
            found = fetch.contents(ftp, ID)
        with pytest.raises(UnreachableError):
            Fetch(remote, ID, tmp_path / "r", lambda _: None).bring(found.items, lambda: Patience(0.2, print, 0.01))


def test_an_answer_in_pieces_and_of_many_lines_is_understood() -> None:
    pieces = [b"220-many\r\n 220 not yet\r", b"\n220-nor here\r\n", b"22", b"0 now\r", b"\n"]
    with (
        HostileServer({"greeting": lambda: pieces}) as server,
        Remote(Address("ftp", "127.0.0.1", server.port)).session() as ftp,
    ):
        assert ftp.welcome == "220-many\n 220 not yet\n220-nor here\n220 now"
        assert remote_files.size(ftp, "/x") is None
