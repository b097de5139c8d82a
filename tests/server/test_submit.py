"""client.sending: one job, whatever cuts the connection; what a reply means; TLS."""

import ftplib
import itertools
import json
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from construir_ftp.client.address import Address, Credentials
from construir_ftp.client.connection import Patience, Remote, Tls, plainly
from construir_ftp.client.submit import JobFile, Receipt, Submission
from construir_ftp.errors import (
    AnswerError,
    ConfigError,
    LoginError,
    RefusedError,
    TryLaterError,
    UnreachableError,
    UsageError,
)
from tests.support import images
from tests.support.appliance import construir
from tests.support.contributor import large_job
from tests.support.cutter import Cutter
from tests.support.fakeserver import FakeServer
from tests.support.ftpclient import PASSWORD, House, serving, users_text
from tests.support.tlsclient import tls_section

SOON_S = 0.05  # pauses that are over soon
ALICE = Credentials("alice", PASSWORD)
MIB = 2**20


@pytest.fixture
def large(tmp_path: Path) -> JobFile:
    path = tmp_path / "large.img.zst"
    path.write_bytes(large_job())
    return JobFile.of(path, path.name)


@pytest.fixture
def small(tmp_path: Path) -> JobFile:
    path = tmp_path / "small.img.zst"
    path.write_bytes(images.pack("zstd", images.image("ext2", MIB)))
    return JobFile.of(path, path.name)


def at(
    port: int, host: str = "127.0.0.1", login: Credentials = ALICE, scheme: str = "ftp", **options: object
) -> Remote:
    return Remote(Address(scheme, host, port), login, **options)  # type: ignore[arg-type]


def send(server: Remote, job_file: JobFile, *, was_begun: bool = False, patience_s: float = 10.0) -> Receipt:
    patience = Patience(patience_s, lambda _: None, SOON_S)
    return Submission(server, job_file, patience, lambda _: None).send(was_begun=was_begun)


def test_an_upload_that_was_cut_goes_on_where_it_ended(house: House, large: JobFile) -> None:
    told: list[int] = []
    with Cutter(house.server.address, cuts=[9 * MIB, 6 * MIB, 1]) as network:
        receipt = Submission(at(network.port), large, Patience(10, lambda _: None, SOON_S), told.append).send(
            was_begun=False
        )
        assert network.sessions == 4
    # What a reset connection had not delivered yet is lost with it: on a busy host that can be megabytes.
    begun = [after for before, after in itertools.pairwise(told) if after < before]
    assert len(begun) == 3
    assert begun == sorted(begun)
    assert begun[0] > 0
    (job,) = house.spool.jobs("queue")
    assert (job.id, job.record().upload_sha256) == (receipt.id, large.sha256)
    assert receipt.place == "number 1 in the queue"
    assert house.names("incoming") == []


def test_a_reply_that_was_lost_does_not_make_two_jobs(house: House, small: JobFile) -> None:
    before = send(at(house.server.address[1]), small)
    with Cutter(house.server.address, lost_reply=b"226 Accepted") as network:
        receipt = send(at(network.port), small)
    assert house.names("queue") == sorted([before.id, receipt.id])
    assert receipt.id != before.id


def test_a_lost_reply_to_a_job_that_runs_or_is_done_by_now_is_found_out(house: House, small: JobFile) -> None:
    for finishes in (False, True):
        taken: list[str] = []

        def take(_words: str, taken: list[str] = taken, *, finishes: bool = finishes) -> None:
            taken.extend([] if taken else [_taken(house, small, finishes=finishes)])

        with house.spool.lock(), Cutter(house.server.address, lost_reply=b"226 Accepted") as network:
            receipt = Submission(at(network.port), small, Patience(10, take, SOON_S), lambda _: None).send(
                was_begun=False
            )
        assert [receipt.id] == taken
    assert house.names("queue") == []


def _taken(house: House, job_file: JobFile, *, finishes: bool) -> str:
    job = house.spool.take()
    assert job is not None
    if finishes:
        received = job.record().received.isoformat()
        told = {"id": job.id, "status": "success", "reason": "", "exit_code": 0, "upload_sha256": job_file.sha256}
        house.spool.finish(job, json.dumps({**told, "received": received}).encode())
    return job.id


def test_what_another_command_has_begun_is_continued_only_if_it_is_the_same(
    house: House, large: JobFile, tmp_path: Path
) -> None:
    with Cutter(house.server.address, cuts=[9 * MIB]) as network, pytest.raises((UnreachableError, TryLaterError)):
        send(at(network.port), large, patience_s=0)
    told: list[int] = []
    port = house.server.address[1]
    Submission(at(port), large, Patience(10, lambda _: None, SOON_S), told.append).send(was_begun=True)
    assert told[0] > 4 * MIB
    with Cutter(house.server.address, cuts=[9 * MIB]) as network, pytest.raises((UnreachableError, TryLaterError)):
        send(at(network.port), large, patience_s=0)
    other = tmp_path / "other"
    other.write_bytes(images.pack("zstd", images.image("ext2", MIB)))
    receipt = send(at(port), JobFile.of(other, large.name))
    (job,) = (job for job in house.spool.jobs("queue") if job.id == receipt.id)
    assert job.record().upload_bytes == other.stat().st_size


def test_what_is_kept_is_sent_whole_where_nothing_of_it_is_kept(house: House, small: JobFile) -> None:
    assert send(at(house.server.address[1]), small, was_begun=True).id


def test_an_upload_that_something_on_the_way_has_ended_goes_on(house: House, large: JobFile) -> None:
    class Ending(ftplib.FTP):
        """A connection that ends the first upload early, but in good order."""

        endings = 1

        def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int | None]:
            data, size_bytes = super().ntransfercmd(cmd, rest)
            if cmd.startswith("STOR") and Ending.endings:
                Ending.endings -= 1
                data.sendall(large.path.read_bytes()[: 9 * MIB])
                data.shutdown(socket.SHUT_WR)
            return data, size_bytes

    class Through(Remote, frozen=True):
        def _connect(self) -> ftplib.FTP:
            ftp = Ending(timeout=60)
            ftp.connect(self.address.host, self.address.port)
            return ftp

    server = Through(Address("ftp", *house.server.address), ALICE)
    told: list[int] = []
    receipt = Submission(server, large, Patience(10, lambda _: None, SOON_S), told.append).send(was_begun=False)
    assert house.names("queue") == [receipt.id]
    assert 9 * MIB - 1 in told


def test_what_is_no_job_is_refused_with_65(house: House, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a job\n" * 1000)
    with pytest.raises(RefusedError, match="not a file system image") as refused:
        send(at(house.server.address[1]), JobFile.of(path, path.name))
    assert refused.value.exit_code == 65


def test_a_large_upload_that_is_refused_on_the_way_says_why(house: House, tmp_path: Path) -> None:
    path = tmp_path / "noise.img"
    path.write_bytes(images.noise(20 * MIB))
    with pytest.raises(RefusedError, match="not a file system image"):
        send(at(house.server.address[1]), JobFile.of(path, path.name))
    assert house.is_untouched()


def test_no_room_is_refused_with_75(tmp_path: Path, small: JobFile) -> None:
    with serving(tmp_path / "full", min_free=2**60) as house, pytest.raises(RefusedError, match="no room") as refused:
        send(at(house.server.address[1]), small)
    assert refused.value.exit_code == 75


def test_a_wrong_password_is_refused_with_77(house: House, small: JobFile) -> None:
    with pytest.raises(LoginError, match="refuses the login of alice"):
        send(at(house.server.address[1], login=Credentials("alice", "wrong")), small)


def test_a_server_that_is_not_there_is_not_waited_for(small: JobFile) -> None:
    with pytest.raises(UnreachableError, match="can't be reached"):
        send(at(1), small, patience_s=1000)


def test_a_file_that_has_gone_meanwhile_is_not_the_connections_fault(house: House, small: JobFile) -> None:
    small.path.unlink()
    with pytest.raises(UsageError, match="No such file"):
        send(at(house.server.address[1]), small, patience_s=1000)


def test_names_that_start_nothing_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "x.part"
    path.touch()
    with pytest.raises(RefusedError):
        JobFile.of(path, path.name)
    with pytest.raises(UsageError):
        JobFile.of(tmp_path / "nothing", "nothing")


# -- hostile servers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        "226 Accepted as job ../../etc/passwd, number 1 in the queue; its result will be in /done/x/",
        "226 Accepted as job .hidden, number 1 in the queue; its result will be in /done/x/",
        "226 Transfer complete.",
        "226 \x1b[2Jhello",
    ],
)
def test_an_id_that_is_none_is_not_believed(reply: str, small: JobFile) -> None:
    with FakeServer(stor=reply) as server, pytest.raises(AnswerError) as error:
        send(at(server.port), small)
    assert str(error.value).isprintable()


def test_a_server_that_refuses_with_control_characters_is_quoted_in_one_line(small: JobFile) -> None:
    with FakeServer(stor="550 no\x1b]0;owned\x07") as server, pytest.raises(RefusedError) as error:
        send(at(server.port), small)
    assert str(error.value) == "no?]0;owned?"


def test_a_server_that_has_too_many_sessions_is_tried_later() -> None:
    with FakeServer(greeting="421 Too many sessions") as server, pytest.raises(TryLaterError, match="Too many"):
        _open(at(server.port))


def _open(server: Remote) -> None:
    with plainly(server.address), server.session():
        pass


# -- TLS -------------------------------------------------------------------------------------------------------


@pytest.fixture
def protected(tmp_path: Path, certificate_files: tuple[Path, Path]) -> Iterator[House]:
    with serving(tmp_path / "protected", tls=tls_section(certificate_files, require_tls=True)) as house:
        yield house


@pytest.mark.parametrize(("scheme", "tls"), [("ftp", "auto"), ("ftpes", "auto"), ("ftps", "auto"), ("ftp", "required")])
def test_jobs_go_over_tls_to_a_server_that_is_proved(
    protected: House, certificate: Path, large: JobFile, scheme: str, tls: Tls
) -> None:
    port = protected.server.implicit_port if scheme == "ftps" else protected.server.address[1]
    assert port is not None
    receipt = send(at(port, "localhost", scheme=scheme, tls=tls, ca_file=certificate), large)
    (job,) = protected.spool.jobs("queue")
    assert (job.id, job.record().upload_sha256) == (receipt.id, large.sha256)


@pytest.mark.parametrize("scheme", ["ftp", "ftps"])
def test_a_refusal_in_mid_upload_over_tls_is_told_at_once(
    protected: House, certificate: Path, tmp_path: Path, scheme: str
) -> None:
    (tmp_path / "junk.img").write_bytes(images.noise(2**20) * 64)
    port = protected.server.implicit_port if scheme == "ftps" else protected.server.address[1]
    junk = JobFile.of(tmp_path / "junk.img", "junk.img")
    with pytest.raises(RefusedError, match="not a file system image"):
        send(at(port or 0, "localhost", scheme=scheme, tls="required", ca_file=certificate), junk)
    assert protected.is_untouched()


def test_a_certificate_that_cant_be_proved_ends_it_before_the_password(protected: House, small: JobFile) -> None:
    for scheme, port in (("ftp", protected.server.address[1]), ("ftps", protected.server.implicit_port or 0)):
        with pytest.raises(ConfigError, match="--ca-file or CONSTRUIR_CAFILE"):
            send(at(port, "localhost", scheme=scheme), small)
    with pytest.raises(LoginError, match="TLS"):
        send(at(protected.server.address[1], tls="never"), small)


def test_a_certificate_for_another_host_proves_nothing(protected: House, certificate: Path, small: JobFile) -> None:
    for scheme, port in (("ftp", protected.server.address[1]), ("ftps", protected.server.implicit_port or 0)):
        with pytest.raises(ConfigError, match="can't be proved") as refused:
            send(at(port, "127.1", scheme=scheme, ca_file=certificate), small)
        assert str(refused.value).endswith(
            "it is for localhost, 127.0.0.1, 0:0:0:0:0:0:0:1, and not for 127.1;"
            " name the server by a name that its certificate has"
        )
    assert not protected.spool.names("queue")


def test_tls_that_begins_at_once_is_told_to_who_waits_for_a_greeting(protected: House, small: JobFile) -> None:
    port = protected.server.implicit_port or 0
    for tls in ("auto", "required", "never"):
        with pytest.raises(ConfigError) as refused:
            send(at(port, "localhost", tls=tls), small)
        assert str(refused.value).endswith(f" speaks TLS from the beginning; that is: ftps://localhost:{port}")


def test_tls_that_is_required_is_not_done_without(house: House, certificate: Path, small: JobFile) -> None:
    port = house.server.address[1]
    for server in (at(port, tls="required"), at(port, scheme="ftpes")):
        with pytest.raises(ConfigError, match="speaks no TLS"):
            send(server, small)
    with pytest.raises(ConfigError, match="not a file of certificates"):
        send(at(port, ca_file=Path("/nonexistent.pem")), small)


def test_a_data_connection_resumes_the_control_connections_session(protected: House, certificate: Path) -> None:
    with at(protected.server.address[1], "localhost", ca_file=certificate).session() as ftp:
        with ftp.transfercmd("NLST /done") as data:
            assert isinstance(data, ssl.SSLSocket)
            assert data.session_reused
            data.recv(1)
            data.unwrap()
        ftp.voidresp()


# -- which scheme, --tls and CONSTRUIR_TLS go with which server ------------------------------------------------------


@pytest.fixture(params=["none", "optional", "required"])
def door(request: pytest.FixtureRequest, tmp_path: Path, certificate_files: tuple[Path, Path]) -> Iterator[House]:
    strict = request.param == "required"
    tls = None if request.param == "none" else tls_section(certificate_files, require_tls=strict)
    with serving(tmp_path / "door", tls=tls) as house:
        house.users.path.write_text(users_text("alice", password=PASSWORD))
        yield house


def _advice(said: str) -> tuple[str, tuple[str, ...]]:
    """What a message of the client's advises: an address, or none, and options."""
    advised = said.rstrip("\n").rpartition("; ")[2]
    address = re.search(r"ftp://\S+?(?=,|$| )", advised)
    option = re.search(r"--tls (auto|never|required)", advised)
    return address[0] if address else "", tuple(option[0].split()) if option else ()


@pytest.mark.parametrize("variable", ["", "auto", "required", "never"])
@pytest.mark.parametrize("option", ["", "auto", "required", "never"])
@pytest.mark.parametrize("scheme", ["ftp", "ftpes", "ftps"])
def test_each_scheme_and_choice_of_tls_is_let_in_or_told_what_is(
    door: House, small: JobFile, certificate: Path, tmp_path: Path, scheme: str, option: str, variable: str
) -> None:
    """What is advised is done, until the job is accepted: no advice leads back to what was tried."""
    (tmp_path / ".netrc").write_text(f'machine localhost login alice password "{PASSWORD}"\n')
    (tmp_path / ".netrc").chmod(0o600)
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "CONSTRUIR_CAFILE": str(certificate)}
    env |= {"CONSTRUIR_TLS": variable} if variable else {}
    ports = {"ftps": door.server.implicit_port or door.server.address[1]}

    def submit(server: str, *words: str) -> "subprocess.CompletedProcess[str]":
        return construir("submit", small.path, "--server", server, *words, env=env)

    server = f"{scheme}://alice@localhost:{ports.get(scheme, door.server.address[1])}"
    words: tuple[str, ...] = ("--tls", option) if option else ()
    tried = []
    while (said := submit(server, *words)).returncode:
        assert (said.stdout, said.stderr.count("\n")) == ("", 1), said.stderr
        assert "AUTH TLS" not in said.stderr
        tried.append((server, words))
        advised, more = _advice(said.stderr)
        server, words = advised.replace(":PORT", f":{door.server.address[1]}") or server, more or words
        assert (server, words) not in tried, said.stderr
        assert len(tried) < 3, said.stderr
