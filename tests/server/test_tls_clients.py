"""TLS with the clients people have: OpenSSL's (curl, ftplib), GnuTLS's (lftp, wget) and Go's (rclone).

Many uploads in a row, compared byte by byte: what is lost with pyftpdlib's own TLS is the end of some of them.
"""

import ftplib
import hashlib
import io
import os
import random
import re
import select
import shutil
import socket
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from construir_ftp import process
from construir_ftp.pack import pack
from tests.support import images
from tests.support.contributor import NAME
from tests.support.contributor import PASSWORD as NO_SPACE
from tests.support.ftpclient import LONG_S, PASSWORD, Control, House, serving, users_text
from tests.support.places import PROJECT, SUPPORT
from tests.support.tlsclient import begin, strict_context, tls_section

UPLOADS = 20
MIB = 2**20
DEBIAN_PYTHON = "/usr/bin/python3"


@pytest.fixture
def house(tmp_path: Path, certificate_files: tuple[Path, Path]) -> Iterator[House]:
    with serving(tmp_path / "house", tls=tls_section(certificate_files, require_tls=True)) as house:
        yield house


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of jobs of 4 MiB, all different to their last byte."""
    directory = tmp_path_factory.mktemp("jobs")
    image = images.image("ext2", 4 * MIB)
    for number in range(UPLOADS):
        (directory / f"job-{number:02}.img").write_bytes(image[:MIB] + random.Random(number).randbytes(3 * MIB))
    return directory


def run(*argv: str | Path, **env: str) -> tuple[int, str]:
    """Run a client; its exit status and all it said."""
    done = subprocess.run(
        argv,
        env=process.environment(HOME="/nonexistent", **env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="replace")


def digests(paths: list[Path]) -> list[str]:
    return sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)


def all_arrived(house: House, jobs: Path) -> bool:
    """Whether every job is in the queue, once, as it was."""
    return digests([job.upload for job in house.spool.jobs("queue")]) == digests(list(jobs.iterdir()))


def rclone(port: int, password: str, certificate: Path, *argv: str | Path) -> tuple[int, str]:
    """Run rclone with the remote :ftp: on localhost; each thing is tried once, one thing at a time."""
    obscured = images.run("rclone", "obscure", password).strip()
    return run(
        *("rclone", "--config", "", "--retries", "1", "--low-level-retries", "1"),
        *("--transfers", "1", "--checkers", "1", *argv),
        # Its FTP knows nothing of --ca-cert; this is Go's own.
        SSL_CERT_FILE=str(certificate),
        RCLONE_FTP_HOST="localhost",
        RCLONE_FTP_PORT=str(port),
        RCLONE_FTP_USER="alice",
        RCLONE_FTP_PASS=obscured,
        RCLONE_FTP_EXPLICIT_TLS="true",
    )


# -- uploads that are cut with pyftpdlib's own TLS -----------------------------------------------------------------


@contextmanager
def stock_server(directory: Path, certificate_files: tuple[Path, Path], log: Path) -> Iterator[int]:
    """pyftpdlib's FTPS server, by Debian's Python; its port."""
    if run(DEBIAN_PYTHON, "-c", "import OpenSSL")[0]:
        pytest.skip(f"{DEBIAN_PYTHON} has no OpenSSL: apt install python3-openssl")
    script = SUPPORT / "stockserver.py"
    argv: list[str | Path] = [DEBIAN_PYTHON, script, directory, *certificate_files, sysconfig.get_path("purelib")]
    with (
        log.open("wb") as stderr,
        subprocess.Popen(argv, env=process.environment(), stdout=subprocess.PIPE, stderr=stderr) as server,
    ):
        try:
            assert server.stdout is not None
            assert select.select([server.stdout], [], [], LONG_S)[0], log.read_text()
            yield int(server.stdout.readline())
        finally:
            server.kill()


def test_pyftpdlibs_own_tls_calls_uploads_complete_that_are_cut(
    tmp_path: Path, certificate_files: tuple[Path, Path], jobs: Path
) -> None:
    (tmp_path / "received").mkdir()
    log = tmp_path / "log"
    with stock_server(tmp_path / "received", certificate_files, log) as port:
        status, said = rclone(port, "secret", certificate_files[0], "copy", jobs, ":ftp:")
    received = [int(size) for size in re.findall(r"STOR .* completed=1 bytes=(\d+)", log.read_text())]
    cut = [size for size in received if size < 4 * MIB]
    assert len(received) == UPLOADS, said
    assert cut, "nothing was cut: is there still a reason for a TLS of our own?"
    assert log.read_text().count("-> 226 Transfer complete.") >= UPLOADS
    assert status != 0
    assert said.count("corrupted on transfer: sizes differ") >= len(cut)


def test_rclone_uploads_arrive_whole(house: House, certificate: Path, jobs: Path) -> None:
    _, said = rclone(house.server.address[1], PASSWORD, certificate, "copy", "-vv", jobs, ":ftp:/queue")
    assert all_arrived(house, jobs), said


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_ftplib_uploads_arrive_whole(house: House, certificate: Path, jobs: Path, version: ssl.TLSVersion) -> None:
    with ftplib_client(house, certificate, version) as client:
        for job in sorted(jobs.iterdir()):
            assert client.storbinary(f"STOR /queue/{job.name}", io.BytesIO(job.read_bytes())).startswith("226")
    assert all_arrived(house, jobs)


@contextmanager
def ftplib_client(house: House, certificate: Path, version: ssl.TLSVersion) -> Iterator[ftplib.FTP_TLS]:
    with ftplib.FTP_TLS(timeout=LONG_S, context=strict_context(certificate, version)) as client:
        client.connect(*house.server.address)
        # The name in the certificate, not that of the connection, which goes to an address.
        client.host = "localhost"
        client.login("alice", PASSWORD)
        client.prot_p()
        yield client


def test_curl_uploads_arrive_whole_over_explicit_and_implicit_tls(house: House, certificate: Path, jobs: Path) -> None:
    addresses = (f"ftp://localhost:{house.server.address[1]}", f"ftps://localhost:{house.server.implicit_port}")
    for number, address in enumerate(addresses):
        options = ("--ssl-reqd", "--cacert", certificate, "--user", f"alice:{PASSWORD}")
        status, said = run("curl", "-sSv", *options, "-T", f"{jobs}/job-[{number}0-{number}9].img", f"{address}/queue/")
        assert status == 0, said
        assert said.count("< 226 Accepted as job") == UPLOADS / 2
    assert all_arrived(house, jobs)


def lftp(house: House, certificate: Path, commands: str, address: str = "") -> tuple[int, str]:
    settings = "set net:max-retries 1; set ftp:ssl-force true; set ftp:ssl-protect-data true"
    address = address or f"ftp://localhost:{house.server.address[1]}"
    login = f"set ssl:ca-file {certificate}; debug 9; open -u alice,'{PASSWORD}' {address}"
    return run("lftp", "-c", f"{settings}; {login}; {commands}")


def test_lftp_uploads_arrive_whole_over_explicit_and_implicit_tls(
    house: House, certificate: Path, jobs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "construir.ftp")
    status, said = lftp(house, certificate, f"cd queue; mput {jobs}/job-0*.img")
    assert status == 0, said
    address = f"ftps://localhost:{house.server.implicit_port}"
    status, said = lftp(house, certificate, f"cd queue; mput {jobs}/job-1*.img", address)
    assert status == 0, said
    assert all_arrived(house, jobs)
    assert _resumed(caplog) >= UPLOADS


# -- downloads -----------------------------------------------------------------------------------------------------


@pytest.fixture
def published(house: House) -> Path:
    return house.publish("a-job", {"big": random.Random(1).randbytes(10 * MIB + 7), "empty": b"", "one": b"x"})


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_ftplib_downloads_are_whole(house: House, published: Path, certificate: Path, version: ssl.TLSVersion) -> None:
    with ftplib_client(house, certificate, version) as client:
        for file in published.iterdir():
            content = io.BytesIO()
            assert client.retrbinary(f"RETR /done/a-job/{file.name}", content.write).startswith("226")
            assert content.getvalue() == file.read_bytes()
        assert sorted(client.nlst("/done/a-job")) == ["big", "empty", "one"]


@pytest.mark.parametrize(
    "argv",
    [
        (
            "curl",
            "-sSf",
            "--ssl-reqd",
            "--cacert",
            "{CERTIFICATE}",
            "-o",
            "{OUT}",
            "ftp://localhost:{PORT}/done/a-job/{FILE}",
        ),
        ("curl", "-sSf", "--cacert", "{CERTIFICATE}", "-o", "{OUT}", "ftps://localhost:{IMPLICIT}/done/a-job/{FILE}"),
        ("curl", "-sSf", "-o", "{OUT}", "ftp://localhost:{PORT}/done/a-job/{FILE}"),
        ("wget", "--ca-certificate={CERTIFICATE}", "-O", "{OUT}", "ftps://localhost:{PORT}/done/a-job/{FILE}"),
        (
            *("wget", "--ca-certificate={CERTIFICATE}", "--ftps-implicit"),
            *("-O", "{OUT}", "ftps://localhost:{IMPLICIT}/done/a-job/{FILE}"),
        ),
    ],
    ids=["curl explicit", "curl implicit", "curl in clear", "wget explicit", "wget implicit"],
)
def test_downloads_are_whole(
    house: House, published: Path, certificate: Path, tmp_path: Path, argv: tuple[str, ...]
) -> None:
    implicit = str(house.server.implicit_port)
    for file in published.iterdir():
        words = {"CERTIFICATE": str(certificate), "OUT": str(tmp_path / file.name), "FILE": file.name}
        words |= {"PORT": str(house.server.address[1]), "IMPLICIT": implicit}
        status, said = run(*(word.format(**words) for word in argv))
        assert status == 0, said
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_lftp_downloads_are_whole(house: House, published: Path, certificate: Path, tmp_path: Path) -> None:
    status, said = lftp(house, certificate, f"mirror /done/a-job {tmp_path}/copy")
    assert status == 0, said
    assert digests(list((tmp_path / "copy").iterdir())) == digests(list(published.iterdir()))


def test_rclone_downloads_are_whole(house: House, published: Path, certificate: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    status, said = rclone(house.server.address[1], PASSWORD, certificate, "copy", ":ftp:/done/a-job", copy)
    assert status == 0, said
    assert digests(list(copy.iterdir())) == digests(list(published.iterdir()))


# -- sessions ------------------------------------------------------------------------------------------------------


def _resumed(caplog: pytest.LogCaptureFixture) -> int:
    return sum("data connection over TLS" in line and line.endswith("resumed session") for line in caplog.messages)


def test_curl_resumes_the_session_of_the_control_connection(
    house: House, certificate: Path, jobs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "construir.ftp")
    address = f"ftp://localhost:{house.server.address[1]}/queue/"
    for version in ("1.2", "1.3"):
        options = ("--ssl-reqd", "--tls-max", version, "--cacert", certificate, "--user", f"alice:{PASSWORD}")
        assert run("curl", "-sS", *options, "-T", jobs / "job-00.img", address) == (0, "")
    assert _resumed(caplog) == 2


def test_filezillas_way_of_sending(house: House, certificate: Path, jobs: Path) -> None:
    """Its commands, in its order; the handshake comes after the 150, with the control connection's session."""
    content = (jobs / "job-00.img").read_bytes()
    with begin(house, certificate) as alice:
        assert alice.ask("AUTH TLS").startswith("234")
        alice.shake_hands()
        for command, code in (
            ("USER alice", "331"),
            (f"PASS {PASSWORD}", "230"),
            ("SYST", "215"),
            ("FEAT", "211"),
            ("OPTS UTF8 ON", "200"),
            ("PBSZ 0", "200"),
            ("PROT P", "200"),
            ("CWD /queue", "250"),
            ("PWD", "257"),
            ("TYPE I", "200"),
        ):
            assert alice.ask(command).startswith(code), command
        assert isinstance(alice.socket, ssl.SSLSocket)
        for command in ("MLSD", "STOR hello.img", "MLSD"):
            with Control.passive(alice) as raw:
                assert alice.ask(command).startswith(("125", "150"))
                with alice.wrap(raw, alice.socket.session) as data:
                    assert data.session_reused
                    if command.startswith("STOR"):
                        data.sendall(content)
                        data.unwrap().shutdown(socket.SHUT_RDWR)
                    else:
                        while data.recv(65536):
                            pass
            assert alice.reply().startswith("226"), command


@pytest.fixture
def at_home(house: House, tmp_path: Path) -> Path:
    """A desk with a job on it, below a home that has the password."""
    house.users.path.write_text(users_text(NAME, password=NO_SPACE))
    desk = tmp_path / "home" / "desk"
    desk.mkdir(parents=True)
    images.job_directory(desk / "greet", b"#!/bin/sh\necho hello\n")
    pack.pack(desk / "greet", desk / "greet.img.zst")
    (desk.parent / ".netrc").write_text(f"machine localhost login {NAME} password {NO_SPACE}\n")
    (desk.parent / ".netrc").chmod(0o600)
    return desk


@pytest.mark.parametrize("is_known", [True, False], ids=["of a known authority", "that signs itself"])
def test_the_lines_of_the_clients_page_send_jobs_over_tls(
    house: House, certificate: Path, at_home: Path, is_known: bool
) -> None:
    """Where the certificate is not known, what is for a known one is refused before anything is sent."""
    section = (PROJECT / "docs/clients.md").read_text().partition("\n## TLS\n")[2]
    known, named = ([*lines.replace("\\\n", "").splitlines()] for lines in section.split("```")[1:4:2])
    shutil.copy(certificate, at_home / "server.pem")
    # As the administrator does whose system knows an authority.
    trusted = {"CURL_CA_BUNDLE": str(certificate)} if is_known else {}
    (at_home.parent / ".lftprc").write_text(f"set ssl:ca-file {certificate}\n" if is_known else "")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = process.environment(HOME=str(at_home.parent), PATH=path, **trusted)
    for line, is_taken in [*((line, is_known) for line in known[1:]), *((line, True) for line in named[1:])]:
        before = len(house.names("queue"))
        typed = line.replace("server:2121", f"localhost:{house.server.address[1]}")
        typed = typed.replace("-p 2121 alice@server", f"-p {house.server.address[1]} alice@localhost")
        argv = ["bash", "-ec", typed]
        said = subprocess.run(argv, cwd=at_home, env=env, capture_output=True, text=True, timeout=LONG_S, check=False)
        assert (said.returncode == 0) == is_taken, (line, said.stderr)
        assert len(house.names("queue")) == before + is_taken, (line, said.stderr)


def test_every_client_of_these_tests_is_here() -> None:
    """A missing one fails here, with its name, rather than in all of its tests."""
    assert [name for name in ("curl", "wget", "lftp", "rclone", "openssl") if not shutil.which(name)] == []
    assert sys.platform == "linux"
