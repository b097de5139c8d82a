"""TLS: what a client says in clear stays in clear, what is cut is no job, and nobody waits for half a handshake.

Raw connections, driven step by step; the clients people have are in test_tls_clients.
"""

import ftplib
import io
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from construir_ftp.ftp import tls
from tests.support import images
from tests.support.ftpclient import LONG_S, PASSWORD, Control, House, reset, serving, wait_until
from tests.support.tlsclient import TlsControl, begin, begin_implicitly, make_certificate, strict_context, tls_section

JOB = images.image("ext2", 2**20)
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture
def house(tmp_path: Path, certificate_files: tuple[Path, Path]) -> Iterator[House]:
    with serving(tmp_path, tls=tls_section(certificate_files)) as house:
        yield house


@pytest.fixture
def strict_house(tmp_path: Path, certificate_files: tuple[Path, Path]) -> Iterator[House]:
    """A house that hears contributors over TLS only."""
    with serving(tmp_path, tls=tls_section(certificate_files, require_tls=True)) as house:
        yield house


@pytest.fixture
def short_handshakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_S", 1.0)


# -- explicit and implicit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_explicit_tls_protects_control_and_data(house: House, certificate: Path, version: ssl.TLSVersion) -> None:
    house.publish("a-job", {"output.log": b"hello"})
    with begin(house, certificate, version) as alice:
        alice.protect().identify()
        assert alice.store("/queue/x.img", JOB).startswith("226")
        assert alice.fetch("RETR /done/a-job/output.log") == b"hello"
        assert alice.fetch("NLST /done/a-job") == b"output.log\r\n"
        assert alice.fetch("NLST /running") == b""
        assert alice.socket.version() == version.name.replace("_", ".")  # type: ignore[attr-defined]
    (job,) = house.spool.jobs("queue")
    assert job.upload.read_bytes() == JOB


def test_implicit_tls_protects_everything_unasked(house: House, certificate: Path) -> None:
    with begin_implicitly(house, certificate) as alice:
        assert alice.identify().store("/queue/x.img", JOB).startswith("226")
        assert alice.ask("PBSZ 0").startswith("200")
        assert alice.ask("PROT P").startswith("200"), "clients that say it all the same may"
        assert alice.store("/queue/y.img", JOB).startswith("226")
        assert alice.ask("AUTH TLS").startswith("503")


def test_data_goes_in_clear_until_prot_p_and_after_prot_c(house: House, certificate: Path) -> None:
    with begin(house, certificate) as alice:
        assert alice.ask("AUTH TLS").startswith("234")
        alice.shake_hands()
        assert alice.identify().store("/queue/x.img", JOB).startswith("226")
        assert alice.ask("PBSZ 0").startswith("200")
        for level, is_protected in (("P", True), ("C", False), ("p", True)):
            assert alice.ask(f"PROT {level}").startswith("200")
            alice.is_data_protected = is_protected
            assert alice.store("/queue/x.img", JOB).startswith("226")


def test_prot_closes_a_data_connection_of_the_other_kind(house: House, certificate: Path) -> None:
    with begin(house, certificate) as alice:
        alice.protect().identify()
        with alice.passive():
            assert alice.ask("PROT C").startswith("200")
            assert alice.ask("STOR /queue/x.img").startswith("425")
        assert house.is_untouched()


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("AUTH KERBEROS", "504"),
        ("AUTH TLS-P", "504"),
        ("AUTH", "501"),
        ("PBSZ 0", "503"),
        ("PROT P", "503"),
        ("PROT", "501"),
    ],
)
def test_security_commands_out_of_order_in_clear(house: House, certificate: Path, command: str, code: str) -> None:
    with begin(house, certificate) as control:
        assert control.ask(command).startswith(code)
        assert control.protect().ask("NOOP").startswith("200")


@pytest.mark.parametrize(
    ("command", "code"),
    [("AUTH TLS", "503"), ("PROT S", "536"), ("PROT E", "536"), ("PROT X", "504"), ("CCC", "500"), ("REIN", "502")],
)
def test_security_commands_that_make_no_sense_over_tls(
    house: House, certificate: Path, command: str, code: str
) -> None:
    with begin(house, certificate) as alice:
        assert alice.protect().identify().ask(command).startswith(code)
        assert alice.store("/queue/x.img", JOB).startswith("226")


def test_prot_before_pbsz_is_refused(house: House, certificate: Path) -> None:
    with begin(house, certificate) as control:
        assert control.ask("AUTH SSL").startswith("234"), "what curl asks for first"
        control.shake_hands()
        assert control.ask("PROT P").startswith("503")


def test_auth_logs_out_whoever_had_logged_in_in_clear(house: House, certificate: Path) -> None:
    with begin(house, certificate) as alice:
        alice.identify()
        data = alice.passive()
        alice.protect()
        for command in ("PWD", "STOR /queue/x.img", "EPSV"):
            assert alice.ask(command).startswith("530")
        data.close()
        assert alice.identify().store("/queue/x.img", JOB).startswith("226")


def test_tls_is_offered_where_there_is_a_certificate(house: House, certificate: Path) -> None:
    with begin(house, certificate) as control:
        features = control.ask("FEAT").split("\r\n")
        assert {" AUTH TLS", " PBSZ", " PROT"} <= set(features)
        assert all(command in control.ask("HELP") for command in ("AUTH", "PBSZ", "PROT"))


def test_tls_is_not_offered_without_a_certificate(tmp_path: Path) -> None:
    with serving(tmp_path) as plain, plain.connect() as control:
        control.log_in()
        assert "AUTH" not in control.ask("FEAT")
        for command in ("AUTH TLS", "PBSZ 0", "PROT P"):
            assert control.ask(command)[:3] in ("502", "503")
        assert plain.server.implicit_port is None


def test_tls_works_over_ipv6_and_with_active_data_connections(
    tmp_path: Path, certificate_files: tuple[Path, Path]
) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 on this machine")
    with (
        serving(tmp_path, tls=tls_section(certificate_files), address="::1") as house,
        begin(house, certificate_files[0]) as alice,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as listener,
    ):
        assert alice.protect().identify().store("/queue/x.img", JOB).startswith("226")
        house.publish("a-job", {"output.log": b"hello"})
        alice.send(f"EPRT |2|::1|{listener.getsockname()[1]}|", "RETR /done/a-job/output.log")
        with alice.wrap(listener.accept()[0]) as data, data.makefile("rb") as file:
            assert file.read() == b"hello"
        assert [alice.reply()[:3] for _ in range(3)] == ["200", "125", "226"]


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_versions_before_1_2_are_refused(house: House, version: str) -> None:
    host, port = house.server.address
    argv = ["openssl", "s_client", "-connect", f"{host}:{port}", "-starttls", "ftp", version]
    for extra, is_welcome in ((["-cipher", "ALL:@SECLEVEL=0"], False), ([], False)):
        said = subprocess.run([*argv, *extra], input=b"QUIT\r\n", capture_output=True, timeout=LONG_S, check=False)
        assert (said.returncode == 0) == is_welcome, said
    good = subprocess.run([*argv[:-1], "-tls1_2"], input=b"QUIT\r\n", capture_output=True, timeout=LONG_S, check=False)
    assert good.returncode == 0, "the same command succeeds with a version that is offered"


# -- require_tls -------------------------------------------------------------------------------------------------


def test_password_of_a_contributor_is_refused_in_clear_before_it_is_sent(
    strict_house: House, certificate: Path
) -> None:
    with begin(strict_house, certificate) as alice:
        assert alice.ask("USER alice").startswith("530 ")
        assert alice.ask(f"PASS {PASSWORD}").startswith("503")
        assert alice.ask("USER mallory").startswith("530 "), "whether there is such a user is not told"
        assert alice.protect().identify().store("/queue/x.img", JOB).startswith("226")


def test_anyone_reads_results_in_clear_where_tls_is_required(strict_house: House, certificate: Path) -> None:
    strict_house.publish("a-job", {"output.log": b"hello"})
    with begin(strict_house, certificate) as anyone:
        assert anyone.identify("anonymous").fetch("RETR /done/a-job/output.log") == b"hello"
        assert anyone.ask("USER alice").startswith("530 ")
        assert anyone.fetch("RETR /done/a-job/output.log") == b"hello"


def test_jobs_are_not_taken_over_clear_data_connections_where_tls_is_required(
    strict_house: House, certificate: Path
) -> None:
    with begin(strict_house, certificate) as alice:
        assert alice.ask("AUTH TLS").startswith("234")
        alice.shake_hands()
        alice.identify()
        for command in ("EPSV", "PASV", "PORT 127,0,0,1,200,10", "EPRT |1|127.0.0.1|50000|"):
            assert alice.ask(command).startswith("521 ")
        assert alice.ask("PBSZ 0").startswith("200")
        assert alice.ask("PROT P").startswith("200")
        with alice.passive(), suppress(ConnectionError):
            assert alice.ask("PROT C").startswith("200")
            assert alice.ask("STOR /queue/x.img").startswith("425")
        assert strict_house.is_untouched()


def test_curl_without_tls_never_sends_the_password(strict_house: House, tmp_path: Path, certificate: Path) -> None:
    (tmp_path / "hello.img").write_bytes(JOB)
    argv = ["curl", "-sSv", "--user", f"alice:{PASSWORD}", "-T", f"{tmp_path}/hello.img", strict_house.url("/queue/")]
    done = subprocess.run(argv, capture_output=True, timeout=LONG_S, check=False)
    assert done.returncode == 67, "login denied"
    assert b"PASS" not in done.stderr
    done = subprocess.run([*argv, "--ssl", "--cacert", certificate], capture_output=True, timeout=LONG_S, check=False)
    assert done.returncode == 0, done.stderr


# -- what was said in clear (CVE-2011-0411) ------------------------------------------------------------------------


@pytest.mark.parametrize("smuggled", [b"NOOP\r\n", b"USER mallory\r\nPASS x\r\n", b"NO", b"\r\nNOOP\r\n" * 50])
def test_commands_in_the_packet_of_auth_are_thrown_away(house: House, certificate: Path, smuggled: bytes) -> None:
    with begin(house, certificate) as control:
        control.socket.sendall(b"AUTH TLS\r\n" + smuggled)
        assert control.reply().startswith("234")
        control.shake_hands()
        assert control.ask("SYST").startswith("215"), "the first reply is to the first command after the handshake"
        assert control.ask("PASS x").startswith("503")


def test_commands_that_waited_behind_auth_are_thrown_away(house: House, certificate: Path) -> None:
    with begin(house, certificate) as alice:
        data = alice.identify().begin("/queue/x.img")
        alice.send("AUTH TLS", "SYST", "SYST")
        data.sendall(JOB)
        data.close()
        assert alice.reply().startswith("226")
        assert alice.reply().startswith("234")
        alice.shake_hands()
        assert alice.ask("NOOP").startswith("200")


def test_clear_text_in_place_of_a_handshake_ends_the_session(house: House, certificate: Path) -> None:
    with begin(house, certificate) as control:
        assert control.ask("AUTH TLS").startswith("234")
        control.send("NOOP", "USER alice", f"PASS {PASSWORD}")
        with suppress(ConnectionError):
            assert b"200" not in control.socket.recv(1000)
            assert control.socket.recv(1000) == b""
    wait_until(lambda: not house.listener.sessions, "the session is gone")


def test_plain_client_on_the_implicit_port_is_told_nothing(house: House) -> None:
    assert house.server.implicit_port is not None
    with Control((house.server.address[0], house.server.implicit_port)) as control, suppress(ConnectionError):
        control.send("USER alice")
        assert b"331" not in control.socket.recv(1000)
        assert control.socket.recv(1000) == b""
    wait_until(lambda: not house.listener.sessions, "the session is gone")


# -- the end of an upload -------------------------------------------------------------------------------------------


def store_unsigned(alice: TlsControl, name: str, content: bytes) -> str:
    """An upload that ends as .NET's do, with a FIN that anybody on the way could have sent; the reply to it."""
    data = alice.begin(name)
    data.sendall(content)
    data.shutdown(socket.SHUT_WR)
    with data:
        return alice.reply()


@pytest.mark.parametrize("codec", ["raw", "zstd", "xz", "gzip"])
@pytest.mark.parametrize("version", VERSIONS)
def test_upload_without_close_notify_is_a_job_if_it_is_whole(
    house: House, certificate: Path, codec: str, version: ssl.TLSVersion
) -> None:
    job = images.pack(codec, JOB)
    with begin(house, certificate, version) as alice:
        reply = store_unsigned(alice.protect().identify(), "/queue/x.img", job[:-1])
        assert reply.startswith("550 Refused: ")
        assert f"after the {len(job) - 2} bytes that are kept" in reply
        assert house.names("queue") == []
        assert store_unsigned(alice, "/queue/x.img", job).startswith("226 Accepted as job ")
    (queued,) = house.spool.jobs("queue")
    assert queued.upload.read_bytes() == job


def test_list_of_files_without_close_notify_is_none(house: House, certificate: Path) -> None:
    with begin(house, certificate) as alice:
        assert store_unsigned(alice.protect().identify(), "/queue/x.changes", b"Format: 1.8").startswith("426 ")


def test_upload_over_tls_that_is_reset_is_no_job(house: House, certificate: Path) -> None:
    with begin(house, certificate) as alice:
        data = alice.protect().identify().begin("/queue/x.img")
        data.sendall(JOB)
        reset(data)
        assert alice.reply().startswith("426 ")
        assert house.names("queue") == []


def test_upload_with_a_forged_end_is_no_job(house: House, certificate: Path) -> None:
    with begin(house, certificate) as alice:
        data = alice.protect().identify().begin("/queue/x.img")
        data.sendall(JOB)
        # A close_notify as anybody on the way could have written it: an alert (21) in clear.
        with socket.socket(fileno=data.detach()) as raw:
            raw.sendall(b"\x15\x03\x03\x00\x02\x01\x00")
            raw.shutdown(socket.SHUT_WR)
            assert alice.reply().startswith("426 ")
        assert house.names("queue") == []


class InMemory:
    """The client's end of TLS without a socket: what would be sent is kept, to be sent in any pieces."""

    def __init__(self, raw: socket.socket, context: ssl.SSLContext) -> None:
        self._raw, self._in, self._out = raw, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                raw.sendall(self._out.read())
                self._in.write(raw.recv(65536))
        raw.sendall(self._out.read())

    def read(self, size: int) -> bytes:
        """What has come; "" at a proper end."""
        while True:
            try:
                return self.tls.read(size)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                received = self._raw.recv(65536)
                assert received, "an end without close_notify"
                self._in.write(received)

    def bytes_of(self, *chunks: bytes) -> bytes:
        """The chunks, each in a record of its own, and a close_notify."""
        for chunk in chunks:
            self.tls.write(chunk)
        with suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self.taken()

    def taken(self) -> bytes:
        """What is to be sent of all that was written."""
        return self._out.read()


@pytest.mark.parametrize("record_bytes", [97, 1 << 14])
def test_end_that_comes_with_the_last_bytes_is_noticed_although_the_connection_stays_open(
    house: House, certificate: Path, record_bytes: int
) -> None:
    with begin(house, certificate) as alice:
        alice.protect().identify()
        for version in VERSIONS:
            raw = Control.passive(alice)
            client = InMemory(raw, strict_context(certificate, version))
            assert alice.ask("STOR /queue/x.img").startswith("125")
            chunks = [JOB[at : at + record_bytes] for at in range(0, len(JOB), record_bytes)]
            raw.sendall(client.bytes_of(*chunks))
            assert alice.reply().startswith("226"), "no packet comes after the one with the close_notify in it"
            raw.close()


def test_what_is_sent_in_pieces_of_any_size_arrives_as_it_was(house: House, certificate: Path) -> None:
    with begin(house, certificate) as alice:
        alice.protect().identify()
        raw = Control.passive(alice)
        client = InMemory(raw, strict_context(certificate))
        assert alice.ask("STOR /queue/x.img").startswith("125")
        sent = client.bytes_of(JOB[:100_000], JOB[100_000:100_001], JOB[100_001:])
        at, size = 0, 1
        while at < len(sent):
            raw.sendall(sent[at : at + size])
            at, size = at + size, size * 2 % 70_001
        assert alice.reply().startswith("226")
        raw.close()
    (job,) = house.spool.jobs("queue")
    assert job.upload.read_bytes() == JOB


def test_abort_of_an_upload_over_tls(house: House, certificate: Path) -> None:
    with begin(house, certificate) as alice:
        data = alice.protect().identify().begin("/queue/x.img")
        data.sendall(JOB)
        assert alice.ask("ABOR").startswith("426")
        assert alice.reply().startswith("226 Abort")
        data.close()
        assert house.names("queue") == []
        assert alice.store("/queue/x.img", JOB).startswith("226")


# -- the end of a download -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [0, 1, 2**14, 2**18, 2**18 + 1, 5_000_000])
def test_download_ends_with_close_notify(house: House, certificate: Path, version: ssl.TLSVersion, size: int) -> None:
    content = (JOB * 5)[:size]
    house.publish("a-job", {"file": content})
    with begin(house, certificate, version) as anyone:
        # A strict client's read raises ssl.SSLEOFError at an end without it.
        assert anyone.protect().identify("anonymous").fetch("RETR /done/a-job/file") == content


def test_close_notify_waits_until_there_is_room_for_it(house: House, certificate: Path) -> None:
    house.publish("a-job", {"file": b""})
    with begin(house, certificate) as anyone:
        anyone.protect().identify("anonymous")
        with Control.passive(anyone) as raw:
            client = InMemory(raw, anyone.context)
            (session,) = house.listener.sessions
            # What fills the socket is no TLS, so that the only thing TLS has to send is the close_notify.
            junk = _fill(session.data_channel.socket.fileno())
            assert anyone.ask("RETR /done/a-job/file").startswith("125")
            while junk:
                junk -= len(raw.recv(min(junk, 65536)))
            assert client.read(100) == b""
        assert anyone.reply().startswith("226")


def _fill(descriptor: int) -> int:
    """Write to a socket until no more goes in; how many bytes that were."""
    written = 0
    with suppress(BlockingIOError):
        while True:
            written += os.write(descriptor, bytes(1 << 16))
    with suppress(BlockingIOError):
        while True:
            written += os.write(descriptor, b"x")
    return written


def test_client_that_says_goodbye_first_gets_all_of_a_download(house: House, certificate: Path) -> None:
    content = JOB * 8
    house.publish("a-job", {"file": content})
    with begin(house, certificate) as anyone:
        anyone.protect().identify("anonymous")
        with Control.passive(anyone) as raw:
            client = InMemory(raw, anyone.context)
            assert anyone.ask("RETR /done/a-job/file").startswith("125")
            # A half-close (RFC 8446, 6.1). Were it left unread, closing would reset what is still on its way.
            raw.sendall(client.bytes_of())
            received = b""
            while chunk := client.read(1 << 14):
                received += chunk
        assert received == content
        assert anyone.reply().startswith("226")


def test_aborted_download_has_no_close_notify(house: House, certificate: Path) -> None:
    house.publish("a-job", {"file": bytes(20_000_000)})
    with begin(house, certificate) as anyone:
        anyone.protect().identify("anonymous")
        with anyone.passive() as data:
            assert anyone.ask("RETR /done/a-job/file").startswith("125")
            assert data.recv(1000)
            assert anyone.ask("ABOR").startswith("426")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                while data.recv(65536):
                    pass
        assert anyone.reply().startswith("226 Abort")


def test_client_that_leaves_a_download_is_no_trouble(house: House, certificate: Path) -> None:
    house.publish("a-job", {"file": bytes(20_000_000)})
    with begin(house, certificate) as anyone:
        anyone.protect().identify("anonymous")
        with anyone.passive() as data:
            assert anyone.ask("RETR /done/a-job/file").startswith("125")
            reset(data)
        assert anyone.reply().startswith("426")
        assert anyone.ask("NOOP").startswith("200")


# -- sessions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("has_tickets", [True, False])
def test_data_connection_resumes_the_session_of_the_control_connection(
    house: House, certificate: Path, version: ssl.TLSVersion, has_tickets: bool
) -> None:
    with begin(house, certificate, version) as alice:
        if not has_tickets:
            # Sessions are then known to the server by their ids (TLS 1.2, or the tickets of 1.3 that are such ids).
            alice.context.options |= ssl.OP_NO_TICKET
        alice.protect().identify()
        assert isinstance(alice.socket, ssl.SSLSocket)
        for _ in range(3):
            with alice.wrap(Control.passive(alice), alice.socket.session) as data:
                assert data.session_reused
                assert alice.ask("STOR /queue/x.img").startswith("125")
                data.sendall(JOB)
                data.unwrap().close()
            assert alice.reply().startswith("226")


def test_no_ticket_is_sent_over_a_data_connection(house: House, certificate: Path) -> None:
    house.publish("a-job", {"output.log": b"hello"})
    with begin(house, certificate, ssl.TLSVersion.TLSv1_3) as anyone:
        anyone.protect().identify("anonymous")
        assert isinstance(anyone.socket, ssl.SSLSocket)
        assert anyone.socket.session is not None
        assert anyone.socket.session.has_ticket
        with anyone.passive() as data:
            anyone.ask("RETR /done/a-job/output.log")
            assert data.recv(100) == b"hello"
            assert data.recv(100) == b""
            assert isinstance(data, ssl.SSLSocket)
            assert data.session is None or not data.session.has_ticket
        assert anyone.reply().startswith("226")


def test_replies_that_are_read_late_come_whole_and_in_order(house: House, certificate: Path) -> None:
    with begin(house, certificate) as alice:
        alice.protect()
        (session,) = house.listener.sessions
        # So that OpenSSL can't send all at once, and has to be asked again with the same.
        session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 12)
        alice.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        first = alice.ask("HELP")
        alice.send(*["HELP", "SYST"] * 40)
        for _ in range(40):
            assert alice.reply() == first
            assert alice.reply().startswith("215")


# -- half of a handshake -----------------------------------------------------------------------------------------------


@pytest.mark.steady(0.5)
@pytest.mark.usefixtures("short_handshakes")
def test_handshake_that_never_ends_is_given_up_and_nobody_waits_for_it(house: House, certificate: Path) -> None:
    assert house.server.implicit_port is not None
    implicit = (house.server.address[0], house.server.implicit_port)
    hello = _client_hello(certificate)
    with ExitStack() as open_sockets, begin(house, certificate) as alice:
        alice.protect().identify()
        mute = [open_sockets.enter_context(socket.create_connection(implicit, LONG_S)) for _ in range(20)]
        for number, sock in enumerate(mute):
            sock.sendall(hello[: number * 10])
        explicit = [open_sockets.enter_context(begin(house, certificate)) for _ in range(10)]
        for number, control in enumerate(explicit):
            assert control.ask("AUTH TLS").startswith("234")
            control.socket.sendall(hello[: number * 20])
        assert alice.store("/queue/x.img", JOB).startswith("226")
        for sock in [*mute, *(control.socket for control in explicit)]:
            with suppress(ConnectionError):
                assert sock.recv(1) == b""
        assert alice.store("/queue/x.img", JOB).startswith("226")
        wait_until(lambda: len(house.listener.sessions) == 1, "alice's session is what is left")


def _handshakes(house: House) -> int:
    return sum(session.is_shaking_hands for session in list(house.listener.sessions))


@pytest.mark.steady(0.5)
@pytest.mark.parametrize("how", [socket.socket.close, reset])
def test_client_that_closes_in_the_midst_of_its_hello_leaves_no_session(
    house: House, certificate: Path, how: Callable[[socket.socket], None]
) -> None:
    assert house.server.implicit_port is not None
    implicit = (house.server.address[0], house.server.implicit_port)
    begun_s = time.monotonic()
    for begun in (b"", b"\x16", _client_hello(certificate)[:-1], b"\x16\x03\x01\x40\x00\x01" + bytes(100)):
        sock = socket.create_connection(implicit, LONG_S)
        sock.sendall(begun)
        explicit = begin(house, certificate)
        assert explicit.ask("AUTH TLS").startswith("234")
        explicit.socket.sendall(begun)
        wait_until(lambda: _handshakes(house) == 2, "both have begun")
        how(sock)
        how(explicit.socket)
        explicit.close()
        wait_until(lambda: not house.listener.sessions, "both are gone")
    assert time.monotonic() - begun_s < tls.HANDSHAKE_S, "no handshake was waited for"


def test_data_connection_that_is_closed_in_the_midst_of_its_hello_ends_the_command(
    house: House, certificate: Path
) -> None:
    with begin(house, certificate) as alice:
        alice.protect().identify()
        for command in ("STOR /queue/x.img", "NLST /done"):
            with Control.passive(alice) as data:
                assert alice.ask(command).startswith(("125", "150"))
                data.sendall(_client_hello(certificate)[:-1])
            assert alice.reply().startswith("522 No TLS on the data connection: closed before the end of its hello")


def _client_hello(certificate: Path) -> bytes:
    out = ssl.MemoryBIO()
    client = strict_context(certificate).wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


@pytest.mark.steady(0.5)
@pytest.mark.usefixtures("short_handshakes")
@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01", b"GET / HTTP/1.0\r\n\r\n", bytes(1000)])
@pytest.mark.parametrize("command", ["STOR /queue/x.img", "RETR /done/a-job/file", "NLST /done"])
def test_data_connection_without_a_handshake_ends_the_command_and_nothing_else(
    house: House, certificate: Path, command: str, sent: bytes
) -> None:
    house.publish("a-job", {"file": JOB})
    with begin(house, certificate) as alice:
        alice.protect().identify()
        with Control.passive(alice) as data:
            first = alice.ask(command)
            if first.startswith(("125", "150")):
                data.sendall(sent)
                assert alice.reply().startswith("522 ")
        assert house.names("queue") == house.names("incoming") == []
        assert alice.store("/queue/x.img", JOB).startswith("226")


def test_garbage_before_the_command_is_an_end_of_the_data_connection(house: House, certificate: Path) -> None:
    with begin(house, certificate) as alice:
        alice.protect().identify()
        with Control.passive(alice) as data:
            data.sendall(b"garbage garbage garbage")
            with suppress(ConnectionError):
                while data.recv(1000):
                    pass
            assert alice.ask("STOR /queue/x.img").startswith("425")
        assert alice.store("/queue/x.img", JOB).startswith("226")


@pytest.mark.parametrize("version", VERSIONS)
def test_upload_over_tls_may_be_under_way_before_its_command(
    house: House, certificate: Path, version: ssl.TLSVersion
) -> None:
    with begin(house, certificate, version) as alice:
        alice.protect().identify()
        with alice.passive() as data:
            data.sendall(JOB[:30_000])
            for _ in range(3):
                assert alice.ask("NOOP").startswith("200")
            assert alice.ask("STOR /queue/x.img").startswith("125")
            data.sendall(JOB[30_000:])
            assert isinstance(data, ssl.SSLSocket)
            data.unwrap()
        assert alice.reply().startswith("226 Accepted")


@pytest.mark.steady(0.5)
def test_login_deadline_ends_a_handshake(tmp_path: Path, certificate_files: tuple[Path, Path]) -> None:
    with (
        serving(tmp_path, tls=tls_section(certificate_files), login_timeout="1s") as house,
        begin(house, certificate_files[0]) as control,
    ):
        assert control.ask("AUTH TLS").startswith("234")
        assert control.socket.recv(100) == b""


@pytest.mark.steady(0.5)
def test_idle_session_over_tls_is_told_and_closed(tmp_path: Path, certificate_files: tuple[Path, Path]) -> None:
    with (
        serving(tmp_path, tls=tls_section(certificate_files), idle_timeout="1s") as house,
        begin(house, certificate_files[0]) as control,
    ):
        control.protect()
        assert control.reply().startswith("421")
        assert control.reply() == "", "closed with a close_notify"


def test_ten_clients_at_once_upload_over_tls(house: House, certificate: Path) -> None:
    replies: list[str] = []

    def upload() -> None:
        with begin(house, certificate) as alice:
            replies.append(alice.protect().identify().store("/queue/x.img", JOB))

    threads = [threading.Thread(target=upload) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    assert [reply[:3] for reply in replies] == ["226"] * 10


# -- the certificate -----------------------------------------------------------------------------------------------


def test_new_certificate_is_used_without_a_restart_and_old_sessions_go_on(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "server")
    old = strict_context(certificate)
    with serving(tmp_path, tls=tls_section((certificate, key))) as house, begin(house, certificate) as alice:
        alice.protect().identify()
        new_files = make_certificate(tmp_path, "new")
        for new, used in zip(new_files, (certificate, key), strict=True):
            new.replace(used)
        with begin(house, certificate) as bob:
            assert bob.protect().identify("bob").store("/queue/x.img", JOB).startswith("226")
        with TlsControl(house.server.address, old) as stale, pytest.raises(ssl.SSLCertVerificationError):
            stale.reply()
            stale.protect()
        assert alice.store("/queue/x.img", JOB).startswith("226")


@pytest.mark.parametrize("damage", ["garbage", "missing", "other key"])
def test_broken_certificate_is_logged_once_and_the_old_one_kept(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = make_certificate(tmp_path, "server")
    with serving(tmp_path, tls=tls_section((certificate, key))) as house:
        trusted = tmp_path / "trusted.pem"
        trusted.write_bytes(certificate.read_bytes())
        if damage == "garbage":
            certificate.write_text("garbage\n")
        elif damage == "missing":
            certificate.unlink()
        else:
            make_certificate(tmp_path, "other")[1].replace(key)
        for _ in range(3):
            with begin(house, trusted) as alice:
                assert alice.protect().identify().store("/queue/x.img", JOB).startswith("226")
        complaints = [line for line in caplog.messages if "the one before stays in use" in line]
        assert len(complaints) == 1
        assert str(tmp_path) in complaints[0]
        new_certificate, new_key = make_certificate(tmp_path, "new")
        new_key.replace(key)
        new_certificate.replace(certificate)
        with begin(house, certificate) as alice:
            assert alice.protect().identify().store("/queue/x.img", JOB).startswith("226")


# -- whom the server does not speak to ---------------------------------------------------------------------------------


def hello_of(house: House, context: ssl.SSLContext, *, is_implicit: bool) -> ssl.SSLSocket:
    """A control connection after its handshake."""
    port = house.server.implicit_port if is_implicit else house.server.address[1]
    raw = socket.create_connection(("127.0.0.1", port or 0), LONG_S)
    if not is_implicit:
        assert raw.recv(1000).startswith(b"220")
        raw.sendall(b"AUTH TLS\r\n")
        assert raw.recv(1000).startswith(b"234")
    return context.wrap_socket(raw, server_hostname="localhost")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("is_implicit", [True, False])
def test_client_that_names_protocols_has_to_name_ftp(
    house: House, certificate: Path, version: ssl.TLSVersion, is_implicit: bool
) -> None:
    for protocols in (["ftp"], ["http/1.1", "ftp"]):
        context = strict_context(certificate, version)
        context.set_alpn_protocols(protocols)
        with hello_of(house, context, is_implicit=is_implicit) as control:
            assert control.selected_alpn_protocol() == "ftp"
    for protocols in (["http/1.1"], ["h2", "http/1.1"], ["ftp-data", "x"]):
        context = strict_context(certificate, version)
        context.set_alpn_protocols(protocols)
        with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
            hello_of(house, context, is_implicit=is_implicit)


def test_data_connection_of_a_browser_is_refused(house: House, certificate: Path) -> None:
    with begin(house, certificate) as alice:
        alice.protect().identify()
        with Control.passive(alice) as raw:
            assert alice.ask("STOR /queue/x.img").startswith("125")
            context = strict_context(certificate)
            context.set_alpn_protocols(["h2", "http/1.1"])
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(raw, server_hostname="localhost")
            assert alice.reply().startswith("522 No TLS on the data connection: the client speaks other protocols")
        assert alice.store("/queue/x.img", JOB).startswith("226")


def test_hello_that_comes_in_pieces_is_heard_whole(house: House, certificate: Path) -> None:
    for protocols, is_heard in ((["ftp"], True), (["http/1.1"], False)):
        context = strict_context(certificate)
        context.set_alpn_protocols(protocols)
        received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(received, sent, server_hostname="localhost")
        with suppress(ssl.SSLWantReadError):
            client.do_handshake()
        hello = sent.read()
        with socket.create_connection(("127.0.0.1", house.server.implicit_port or 0), LONG_S) as raw:
            for at in range(0, len(hello), 100):
                raw.sendall(hello[at : at + 100])
                time.sleep(0.02)
            # A handshake (22), or an alert (21).
            assert raw.recv(1) == (b"\x16" if is_heard else b"\x15")


@pytest.mark.parametrize("cipher", ["ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-AES128-SHA", "AES128-GCM-SHA256"])
def test_ciphers_without_forward_secrecy_or_with_cbc_are_refused(house: House, certificate: Path, cipher: str) -> None:
    context = strict_context(certificate, ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(cipher)
    with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
        hello_of(house, context, is_implicit=False)


# -- what is refused, or cut, in mid-upload ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_ftplib_is_told_in_mid_upload_why_it_is_refused(
    house: House, certificate: Path, version: ssl.TLSVersion
) -> None:
    junk = images.noise(2**20) * 32
    with ftplib.FTP_TLS(timeout=LONG_S / 2, context=strict_context(certificate, version)) as client:
        client.connect(*house.server.address)
        client.host = "localhost"
        client.login("alice", PASSWORD)
        client.prot_p()
        for _ in range(2):
            with pytest.raises(ftplib.error_perm, match="550 Refused: not a file system image"):
                client.storbinary("STOR /queue/x.img", io.BytesIO(junk))
    assert house.is_untouched()


@pytest.mark.parametrize("version", VERSIONS)
def test_what_has_come_over_tls_together_with_a_cut_is_kept(
    house: House, certificate: Path, version: ssl.TLSVersion
) -> None:
    with begin(house, certificate) as alice:
        alice.protect().identify()
        with Control.passive(alice) as raw:
            client = InMemory(raw, strict_context(certificate, version))
            assert alice.ask("STOR /queue/x.img").startswith("125")
            client.tls.write(JOB[:30_000])
            # What follows is no record: in one piece with those before it.
            raw.sendall(client.taken() + b"\x17\x03\x03\x00\x20" + bytes(32))
            assert alice.reply() == "426 Data connection cut; 29999 bytes are kept, to be continued."
