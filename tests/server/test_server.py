"""server: real clients, real uploads, real checks. After each test what the server left behind is counted."""

import ftplib
import io
import os
import re
import resource
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from construir_ftp.config import GateSection
from construir_ftp.errors import ConfigError, ConstruirError
from construir_ftp.ftp.data import PassiveListener
from construir_ftp.ftp.ports import passive_ports
from tests.support import images, ports
from tests.support.ftpclient import LONG_S, PASSWORD, House, held_check, reset, serving, wait_until
from tests.support.prison import judge_server_pids

JOB = images.image("ext2", 2**20)
MIB = 2**20
# As far as it has come nothing can be said against it, but that it is too large.
LARGE = images.claiming(JOB, 50 * MIB) + bytes(49 * MIB)


def run(*argv: str | Path) -> tuple[int, str]:
    """Run a client; its exit status and all it said."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LONG_S, check=False)
    return done.returncode, done.stdout.decode(errors="replace")


def is_held(house: House) -> bool:
    """Whether the server has all of an upload, and waits for the verdict."""
    return any(session.is_held for session in house.listener.sessions)


def the_job(house: House, reply: str) -> str:
    """The id in a reply 226, which must be that of the only job, waiting with all of its upload."""
    assert reply.startswith("226 Accepted as job "), reply
    job_id = reply.split()[4].rstrip(",")
    assert ", number 1 in the queue; " in reply
    assert reply.endswith(f"its result will be in /done/{job_id}/")
    assert house.names("queue") == [job_id]
    assert house.names("incoming") == []
    assert (house.spool.state("queue") / job_id / "upload").read_bytes() == JOB
    return job_id


# -- uploads by the clients people have ------------------------------------------------------------------------


def test_curl_is_told_the_id_of_its_job(house: House, tmp_path: Path) -> None:
    (tmp_path / "hello.img").write_bytes(JOB)
    status, said = run(
        "curl", "-sSv", "--user", f"alice:{PASSWORD}", "-T", tmp_path / "hello.img", house.url("/queue/")
    )
    assert status == 0, said
    the_job(house, next(line[2:] for line in said.splitlines() if line.startswith("< 226")))


def test_curl_is_told_why_its_upload_is_refused(house: House, tmp_path: Path) -> None:
    (tmp_path / "x.img").write_text("no image\n")
    status, said = run("curl", "-sSv", "--user", f"alice:{PASSWORD}", "-T", tmp_path / "x.img", house.url("/queue/"))
    assert status != 0
    assert "< 550 Refused: " in said
    assert house.is_untouched()


def test_lftp_is_told_the_id_of_its_job_and_why_another_is_refused(house: House, tmp_path: Path) -> None:
    (tmp_path / "hello.img").write_bytes(JOB)
    (tmp_path / "x.img").write_text("no image\n")
    host, port = house.server.address
    login = f"set net:max-retries 1; debug 9; open -u alice,'{PASSWORD}' -p {port} {host}; cd queue"
    status, said = run("lftp", "-c", f"{login}; put {tmp_path}/x.img; put {tmp_path}/hello.img")
    assert status == 0, said
    assert "550 Refused: " in said
    the_job(house, next(line[5:] for line in said.splitlines() if "226 Accepted" in line))


def test_ftplib_is_told_the_id_of_its_job(house: House) -> None:
    with house.client() as client:
        client.cwd("queue")
        the_job(house, client.storbinary("STOR hello.img", io.BytesIO(JOB)))


def test_ftplib_uploads_and_downloads_in_active_mode(house: House) -> None:
    with house.client() as client:
        client.set_pasv(False)
        the_job(house, client.storbinary("STOR /queue/hello.img", io.BytesIO(JOB)))
        house.publish("a-job", {"output.log": b"hello"})
        assert client.nlst("/done/a-job") == ["output.log"]


def test_ipv6_works_as_ipv4_does(tmp_path: Path) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 on this machine")
    with serving(tmp_path, address="::1") as house, house.client() as client:
        the_job(house, client.storbinary("STOR /queue/a.img", io.BytesIO(JOB)))
        client.set_pasv(False)
        assert client.nlst("/queue") == ["a.img"]
        assert "522" in _refused(lambda: client.sendcmd("PASV"))


def _refused(command: Callable[[], object]) -> str:
    with pytest.raises(ftplib.Error) as refused:
        command()
    return str(refused.value)


# -- the verdict is the reply ------------------------------------------------------------------------------------


def test_session_goes_on_after_every_kind_of_verdict(house: House) -> None:
    with house.connect() as alice:
        alice.log_in().ask("CWD queue")
        assert alice.store("empty.img", b"").startswith("550 Refused: ")
        first = alice.store("a.img", JOB)
        the_job(house, first)
        assert alice.store("b.txt", b"no image\n" * 1000).startswith("550 Refused: ")
        second = alice.store("a.img", JOB)
        assert second.startswith("226")
        assert alice.ask("NOOP").startswith("200")
    assert house.names("incoming") == house.names("trash") == []
    assert len(house.names("queue")) == 2, "the same name twice is two jobs, neither of which replaces the other"


def test_job_belongs_to_who_sent_it(house: House) -> None:
    for name in ("alice", "bob"):
        with house.connect() as control:
            assert control.log_in(name).store("/queue/x.img", JOB).startswith("226")
    assert sorted(job.record().contributor for job in house.spool.jobs("queue")) == ["alice", "bob"]


def test_user_command_during_an_upload_does_not_change_whose_it_is(house: House) -> None:
    with house.connect() as alice, alice.log_in().begin("/queue/x.img") as data:
        data.sendall(JOB[:1000])
        alice.send("USER bob")
        data.sendall(JOB[1000:])
        data.close()
        assert alice.reply().startswith("226")
        assert alice.reply().startswith("331")
        assert alice.ask("PASV").startswith("530")
    assert [job.record().contributor for job in house.spool.jobs("queue")] == ["alice"]


def test_others_are_served_while_an_upload_is_checked(house: House) -> None:
    house.publish("a-job", {"output.log": b"hello"})
    with house.connect() as alice, alice.log_in().begin("/queue/x.img") as data:
        with held_check():
            data.sendall(JOB)
            data.close()
            wait_until(lambda: is_held(house), "the check has begun")
            with house.client("bob") as bob:
                assert bob.nlst("/queue") == []
            with house.connect() as anyone:
                assert anyone.log_in("anonymous").fetch("RETR /done/a-job/output.log") == b"hello"
            assert house.names("queue") == [], "the check is still held"
        the_job(house, alice.reply())


def test_many_checks_at_once_all_have_their_own_verdict(house: House) -> None:
    sessions = [house.connect().log_in() for _ in range(12)]
    for number, session in enumerate(sessions):
        with session.begin(f"/queue/job{number}.img") as data:
            data.sendall(JOB if number % 3 else JOB[:-1])
    for number, session in enumerate(sessions):
        reply = session.reply()
        assert f"-job{number}," in reply if number % 3 else reply.startswith("550"), reply
        session.close()
    assert len(house.names("queue")) == 8
    assert house.kept() == {f"job{number}.img": len(JOB) - 2 for number in (0, 3, 6, 9)}, "they may have been cut"
    assert (len(house.names("incoming")), house.names("trash")) == (4, [])


def test_commands_sent_during_a_transfer_and_its_check_are_answered_afterwards_in_order(house: House) -> None:
    with house.connect() as alice:
        data = alice.log_in().begin("/queue/x.img")
        alice.send("NOOP", "PWD", "STOR /queue/y.img")
        with held_check():
            data.sendall(JOB)
            data.close()
            wait_until(lambda: is_held(house), "the check has begun")
            alice.send("SYST", "ABOR")
        the_job(house, alice.reply())
        assert [alice.reply()[:3] for _ in range(5)] == ["200", "257", "425", "215", "225"]


def test_quit_during_the_check_is_answered_after_the_verdict(house: House) -> None:
    with house.connect() as alice:
        with alice.log_in().begin("/queue/x.img") as data:
            data.sendall(JOB)
        alice.send("QUIT", "STOR /queue/y.img")
        the_job(house, alice.reply())
        assert alice.reply().startswith("221")
        assert alice.reply() == ""


def test_quit_ends_a_session_whose_data_connection_is_open_and_unused(house: House) -> None:
    with house.connect() as alice, alice.log_in().passive():
        (session,) = house.listener.sessions
        wait_until(lambda: session.data_channel, "the data connection is accepted")
        assert alice.ask("QUIT").startswith("221")
        assert alice.reply() == ""


def test_stat_during_an_upload_is_answered_at_once(house: House) -> None:
    with house.connect() as alice, alice.log_in().begin("/queue/x.img") as data:
        data.sendall(JOB[:5000])
        assert alice.ask("STAT").startswith("211")
        data.sendall(JOB[5000:])
        data.close()
        the_job(house, alice.reply())


@pytest.mark.parametrize("count", [101, 3000])
def test_commands_during_a_transfer_are_all_answered_after_it(house: House, count: int) -> None:
    with house.connect() as alice, alice.log_in().begin("/queue/x.img") as data:
        alice.send(*["NOOP"] * count)
        data.sendall(JOB)
        data.close()
        the_job(house, alice.reply())
        assert all(alice.reply().startswith("200") for _ in range(count))
        assert alice.ask("SYST").startswith("215")


def test_abort_is_obeyed_although_many_commands_wait_before_it(house: House) -> None:
    with house.connect() as alice, alice.log_in().begin("/queue/x.img"):
        alice.send(*["NOOP"] * 500, "ABOR")
        assert [alice.reply()[:3] for _ in range(502)] == ["426", "226", *["200"] * 500]


def wait_for_bytes(house: House, count: int) -> None:
    """Wait until so much of the only upload has arrived."""
    (place,) = house.names("incoming")
    upload = house.spool.state("incoming") / place / "upload"
    wait_until(lambda: upload.stat().st_size == count, "all of it has arrived")


# -- what is cut is no job ---------------------------------------------------------------------------------------


def test_upload_cut_by_reset_is_no_job_even_if_all_of_it_had_arrived(house: House) -> None:
    with house.connect() as alice:
        data = alice.log_in().begin("/queue/x.img")
        data.sendall(JOB)
        wait_for_bytes(house, len(JOB))
        reset(data)
        assert alice.reply() == f"426 Data connection cut; {len(JOB) - 1} bytes are kept, to be continued."
        assert house.keeps({"x.img": len(JOB) - 1})
        assert alice.store("/queue/x.img", JOB).startswith("226")


def test_upload_whose_control_connection_is_closed_is_no_job(house: House) -> None:
    with house.connect() as alice:
        data = alice.log_in().begin("/queue/x.img")
        data.sendall(JOB)
        wait_for_bytes(house, len(JOB))
    data.close()
    wait_until(lambda: house.keeps({"x.img": len(JOB) - 1}), "the upload is kept")


def test_control_connection_closed_right_after_the_data_connection_is_no_job(house: House) -> None:
    with house.connect() as alice, held_check():
        with alice.log_in().begin("/queue/x.img") as data:
            data.sendall(JOB)
        wait_until(lambda: is_held(house), "the check has begun")
        # Lines that are still unread must not hide the end of the connection.
        alice.send("NOOP", "NOOP")
        alice.close()
    wait_until(lambda: house.keeps({"x.img": len(JOB) - 1}), "the upload is kept")


def test_control_connection_reset_during_the_check_is_no_job(house: House) -> None:
    alice = house.connect()
    with held_check():
        with alice.log_in().begin("/queue/x.img") as data:
            data.sendall(JOB)
        wait_until(lambda: is_held(house), "the check has begun")
        alice.cut()
    wait_until(lambda: house.keeps({"x.img": len(JOB) - 1}), "the upload is kept")


def test_client_killed_in_mid_upload_leaves_no_job(house: House, tmp_path: Path) -> None:
    (tmp_path / "big.img").write_bytes(JOB + bytes(8 * MIB))
    argv = ["curl", "-sS", "--limit-rate", "1M", "--user", f"alice:{PASSWORD}", "-T", f"{tmp_path}/big.img"]
    with subprocess.Popen([*argv, house.url("/queue/")], stderr=subprocess.DEVNULL) as curl:
        incoming = house.spool.state("incoming")
        wait_until(lambda: any(file.stat().st_size for file in incoming.glob("*/upload")), "bytes arrive")
        curl.kill()
    wait_until(lambda: list(house.kept()) == ["big.img"], "the upload is kept")


def test_aborted_upload_is_no_job_and_the_session_goes_on(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "construir.ftp")
    with house.connect() as alice, alice.log_in().begin("/queue/x.img") as data:
        data.sendall(JOB)
        # As clients send it: Telnet's IP and Synch in front, the last of them as urgent data.
        alice.socket.sendall(b"\xff\xf4")
        alice.socket.send(b"\xff", socket.MSG_OOB)
        alice.send(b"\xf2ABOR")
        assert alice.reply().startswith("426")
        assert alice.reply().startswith("226 Abort")
        assert list(house.kept()) == ["x.img"]
        assert alice.store("/queue/x.img", JOB).startswith("226 Accepted")
    assert all(line.isprintable() for line in caplog.messages)


def test_abort_before_the_data_connection_is_open(house: House) -> None:
    with house.connect() as alice:
        alice.log_in()
        for command in ("STOR /queue/x.img", "NLST"):
            assert alice.ask("EPSV").startswith("229")
            assert alice.ask(command).startswith("150")
            assert alice.ask("ABOR").startswith("426")
            assert alice.reply().startswith("226")
        assert house.is_untouched()
        assert alice.ask("ABOR").startswith("225")
        assert alice.store("/queue/x.img", JOB).startswith("226")


@pytest.mark.steady(0.3)
def test_stalled_upload_is_broken_off_and_idle_sessions_are_closed(tmp_path: Path) -> None:
    with serving(tmp_path, idle_timeout="500ms") as house, house.connect() as alice, house.connect() as idle:
        with alice.log_in().begin("/queue/x.img") as data:
            data.sendall(JOB[:5000])
            assert alice.reply().startswith("426 Nothing received for 0.5 s; 4999 bytes are kept")
        assert house.keeps({"x.img": 4999})
        assert idle.reply().startswith("220")
        assert idle.reply().startswith("421")
        assert idle.reply() == ""


@pytest.mark.steady(0.2)
def test_slow_check_is_not_idleness(tmp_path: Path) -> None:
    with serving(tmp_path, idle_timeout="300ms") as house, held_check() as judge_server, house.connect() as alice:
        with alice.log_in().begin("/queue/x.img") as data:
            data.sendall(JOB)
        threading.Event().wait(0.8)
        os.kill(judge_server, signal.SIGCONT)
        the_job(house, alice.reply())


@pytest.mark.steady(0.1)
def test_data_connection_never_opened_ends_the_command(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PassiveListener, "timeout", 0.2)
    with house.connect() as alice:
        alice.log_in()
        for command in ("STOR /queue/x.img", "NLST"):
            assert alice.ask("EPSV").startswith("229")
            assert alice.ask(command).startswith("150")
            assert alice.reply().startswith("425")
        assert house.is_untouched()
        alice.ask("EPSV")
        wait_until(lambda: len(house.listener.ioloop.socket_map) == 3, "the port is given up")
        assert alice.ask("NOOP").startswith("200"), "nothing is said that nobody has asked for"


def test_data_connection_reset_before_the_command_is_not_a_finished_transfer(house: House) -> None:
    with house.connect() as alice:
        alice.log_in()
        for _ in range(5):
            reset(alice.passive())
            reply = alice.ask("STOR /queue/x.img")
            if not reply.startswith("425"):
                reply = alice.reply()
            assert reply.startswith(("425", "426")), reply
        assert house.is_untouched()
        assert alice.store("/queue/x.img", JOB).startswith("226")


# -- what is refused before a byte -------------------------------------------------------------------------------

BAD_NAMES = [
    "",
    " ",
    ".",
    "..",
    "...",
    "..hidden",
    "a b.tmp",
    "tmp.a/b",
    "a/b.img",
    "../x.img",
    "/etc/passwd",
    "/queue/../../etc/passwd",
    "/done/x.img",
    "/x.img",
    "a b.img",
    "a\\b.img",
    "x\x01.img",
    "x\x1b[2J.img",
    "x\r.img",
    "x\x7f.img",
    "x\0.img",
    "ä.img",
    "x\u202egmi.img",
    "a\u2066b",
    "a" * 300,
    "a" * 3000,
    "x;reboot",
    "%s%n",
    "~",
    "*",
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_bad_name_is_refused_before_a_byte_and_the_session_goes_on(
    house: House, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with house.connect() as alice:
        alice.log_in().ask("CWD queue")
        with alice.passive():
            reply = alice.ask(f"STOR {name}")
        assert reply[:3] in ("553", "501", "500"), reply
        assert reply.isprintable()
        assert house.is_untouched()
        assert alice.ask("NOOP").startswith("200")
    assert all(line.isprintable() and line.isascii() for line in caplog.messages)


@pytest.mark.parametrize("name", ["gcc_13.2.0-1~deb12u1+b2.img.zst", "a@b=c,d.img", "g++.img"])
def test_name_with_what_debian_versions_have_in_them_is_taken(house: House, name: str) -> None:
    with house.connect() as alice:
        assert alice.log_in().store(f"/queue/{name}", JOB).startswith("226 Accepted")
        assert alice.fetch("NLST /queue").decode() == f"{name}\r\n"
        assert alice.ask(f"SIZE /queue/{name}") == f"213 {len(JOB)}"
    (job,) = house.spool.jobs("queue")
    assert job.record().filename == name
    assert re.fullmatch(r"[A-Za-z0-9._-]+", job.id)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("/queue", b"/queue is a directory; end the address with a slash"),
        ("/", b"jobs go into /queue; send it as /queue/x.img\r"),
        ("/done/x.img", b"jobs go into /queue; send it as /queue/x.img\r"),
    ],
)
def test_curl_that_sends_to_another_place_is_told_so(house: House, tmp_path: Path, place: str, words: bytes) -> None:
    (tmp_path / "x.img").write_bytes(JOB)
    url = house.url(place)
    done = subprocess.run(
        ["curl", "-sSv", "--user", f"alice:{PASSWORD}", "-T", tmp_path / "x.img", url],
        stdout=-1,
        stderr=-2,
        timeout=LONG_S,
        check=False,
    )
    assert done.returncode != 0
    assert b"553 Refused: " + words in done.stdout.replace(b"\n", b"\r")
    assert house.is_untouched()


def test_names_of_every_byte_leave_nothing_behind(house: House) -> None:
    with house.connect() as alice, alice.log_in().passive():
        for byte in range(256):
            # The last of these is the end of a line.
            if (chr(byte).isalnum() and byte < 128) or chr(byte) in "_-.+~@=,\n":
                continue
            reply = alice.ask(b"STOR /queue/a" + bytes([byte]))
            assert reply.startswith(("553", "501")), (byte, reply)
    assert house.is_untouched()


@pytest.mark.parametrize(
    ("before", "command", "code"),
    [
        ("REST 5", "STOR /queue/x.img", "554"),
        ("TYPE A", "STOR /queue/x.img", "550"),
        ("TYPE A", "APPE /queue/x.img", "550"),
        ("NOOP", "APPE /done/a-job/output.log", "553"),
        ("NOOP", "STOU", "502"),
        ("NOOP", "STOU x.img", "502"),
        ("NOOP", "STOR", "501"),
        ("NOOP", "MKD /done/x", "550"),
        ("NOOP", "MKD /x", "550"),
        ("NOOP", "MKD /queue", "550"),
        ("NOOP", "MKD /queue/x/y", "550"),
        ("NOOP", "XMKD /running/x", "550"),
        ("NOOP", "RMD /queue", "550"),
        ("NOOP", "RMD /done/a-job", "550"),
        ("NOOP", "DELE /done/a-job/output.log", "550"),
        ("NOOP", "DELE /done/a-job", "550"),
        ("NOOP", "DELE /README.txt", "550"),
        ("NOOP", "DELE /queue/../done/a-job", "550"),
        ("NOOP", "RNFR /done/a-job", "550"),
        ("NOOP", "RNTO /done/a-job", "503"),
        ("NOOP", "MFMT 20260101000000 /done/a-job/output.log", "550"),
        ("NOOP", "SITE CHMOD 777 /done/a-job/output.log", "550"),
        ("NOOP", "SITE UTIME 20260101000000 /done/a-job/output.log", "550"),
        ("NOOP", "SITE EXEC id", "500"),
    ],
)
def test_command_that_would_change_what_is_there_is_refused(house: House, before: str, command: str, code: str) -> None:
    directory = house.publish("a-job", {"output.log": b"hello"})
    status = (directory / "output.log").stat()
    with house.connect() as alice, alice.log_in().passive():
        assert alice.ask(before)[0] in "23"
        reply = alice.ask(command)
        assert reply.startswith(code), reply
        assert alice.ask("NOOP").startswith("200")
    after = (directory / "output.log").stat()
    assert (after.st_mode, after.st_mtime, after.st_size) == (status.st_mode, status.st_mtime, status.st_size)
    assert house.names("done") == ["a-job"]
    assert house.names("incoming") == house.names("queue") == []


def test_restart_position_is_forgotten_with_the_refusal(house: House) -> None:
    with house.connect() as alice:
        assert alice.log_in().ask("REST 5").startswith("350")
        with alice.passive():
            assert alice.ask("STOR /queue/x.img").startswith("554")
            assert alice.ask("STOR /queue/x.img").startswith(("125", "150"))
        assert alice.reply().startswith("550"), "an empty upload"


def test_transfer_without_a_data_connection_is_refused(house: House) -> None:
    with house.connect() as alice:
        alice.log_in()
        for command in ("STOR /queue/x.img", "LIST", "NLST", "MLSD", "RETR /done/x"):
            assert alice.ask(command).startswith("425")
    assert house.is_untouched()


def test_overlong_line_is_one_refused_command(house: House) -> None:
    with house.connect() as alice:
        alice.log_in()
        alice.send("NOOP " + "x" * 50_000, "PWD")
        assert alice.reply().startswith("500")
        assert alice.reply().startswith("257")


# -- room ----------------------------------------------------------------------------------------------------------


def test_too_large_an_upload_is_stopped_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, max_upload="2MiB") as house, house.connect() as alice:
        with alice.log_in().begin("/queue/x.img") as data:
            data.sendall(images.pack("zstd", images.claiming(JOB, 64 * MIB) + images.noise(2 * MIB)))
            assert alice.reply() == f"552 Refused: larger than {2 * MIB} bytes, the most this server takes"
        assert house.is_untouched()
        assert alice.store("/queue/x.img", JOB).startswith("226")


def test_full_spool_is_said_before_a_byte(tmp_path: Path) -> None:
    with serving(tmp_path, min_free=2**62) as house, house.connect() as alice, alice.log_in().passive():
        assert alice.ask("STOR /queue/x.img").startswith("452 Refused: ")
        assert house.is_untouched()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    if os.geteuid() or run("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", path)[0]:
        pytest.skip("mounting a tmpfs needs root")
    yield path
    assert run("umount", path) == (0, "")


def test_disk_that_fills_during_an_upload_is_said_in_the_reply(small_disk: Path) -> None:
    with serving(small_disk) as house, house.connect() as alice:
        assert alice.log_in().store("/queue/x.img", LARGE).startswith("452 Refused: ")
        assert house.is_untouched()
        assert alice.store("/queue/x.img", JOB).startswith("226")


def test_upload_that_would_fit_is_stopped_at_the_room_kept_free(small_disk: Path) -> None:
    with serving(small_disk, min_free=4 * MIB) as house, house.connect() as alice:
        assert alice.log_in().store("/queue/x.img", LARGE).startswith("452 Refused: ")
        assert house.is_untouched()
        assert alice.store("/queue/x.img", JOB).startswith("226")


# -- logging in ------------------------------------------------------------------------------------------------------


def test_wrong_passwords_end_the_session_however_they_are_sent(house: House) -> None:
    with house.connect() as guesser:
        assert guesser.reply().startswith("220")
        guesser.send(*["USER alice", "PASS wrong password"] * 5, "USER alice", f"PASS {PASSWORD}")
        for _ in range(3):
            assert guesser.reply().startswith("331")
            assert guesser.reply().startswith("530")
        assert guesser.reply() == ""


@pytest.mark.parametrize("name", ["mallory", "Alice", "alice ", "root", "../alice", "a\x1b[2J\u202e", "alice\0"])
def test_unknown_name_is_refused_like_a_wrong_password(
    house: House, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with house.connect() as stranger:
        stranger.reply()
        stranger.send(f"USER {name}", f"PASS {PASSWORD}")
        replies = [stranger.reply(), stranger.reply()]
        assert replies[0][:3] in ("331", "501")
        assert replies[1] in ("530 Wrong name or password.", "503 Login with USER first."), replies
        assert stranger.ask("LIST").startswith("530")
    assert all(line.isprintable() and line.isascii() for line in caplog.messages)
    assert PASSWORD not in caplog.text


def test_nothing_is_to_be_had_without_logging_in(house: House) -> None:
    with house.connect() as stranger:
        stranger.reply()
        for command in ("LIST", "RETR /done/x", "STOR /queue/x.img", "CWD /", "PASV", "PORT 127,0,0,1,9,9", "SIZE /"):
            assert stranger.ask(command).startswith("530"), command


def test_new_contributor_counts_at_the_next_login(house: House) -> None:
    house.users.add("carol", "battery staple")
    with house.connect() as carol:
        assert carol.log_in("carol", "battery staple").store("/queue/x.img", JOB).startswith("226")


def test_damaged_users_file_is_in_the_log_and_anonymous_users_are_served(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.users.path.write_text("[contributors")
    with house.connect() as alice:
        alice.reply()
        alice.ask("USER alice")
        assert alice.ask(f"PASS {PASSWORD}").startswith("530")
        assert str(house.users.path) in caplog.text
        assert alice.ask("USER anonymous").startswith("331")
        assert alice.ask("PASS a@b").startswith("230")


def test_logging_in_again_is_a_new_session(house: House) -> None:
    with house.connect() as control:
        control.log_in("alice").ask("CWD /queue")
        assert control.ask("USER anonymous").startswith("331")
        assert control.ask("PWD").startswith("530")
        assert control.ask("PASS x").startswith("230")
        assert control.ask("PWD").startswith('257 "/"')
        assert control.ask("CWD /queue").startswith("550")
        assert control.ask("TYPE I").startswith("200")
        with control.passive():
            assert control.ask("STOR /queue/x.img").startswith("550")


# -- data connections --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "PORT 127,0,0,2,200,10",
        "PORT 10,0,0,1,200,10",
        "PORT 127,0,0,1,0,25",
        "PORT 127,0,0,1,3,255",
        "EPRT |1|127.0.0.2|50000|",
        "EPRT |1|127.0.0.1|25|",
        "EPRT |1|127.0.0.1|1023|",
        "PORT 127,0,0,1,1",
        "PORT 127,0,0,1,999,999",
        "EPRT |1|localhost|50000|",
    ],
)
def test_bounce_is_refused(house: House, command: str) -> None:
    with house.connect() as alice:
        assert alice.log_in().ask(command).startswith("501")
        assert alice.ask("LIST").startswith("425")


def test_data_connection_from_another_address_is_dropped_and_the_session_told_nothing(house: House) -> None:
    with house.connect() as alice:
        port = int(alice.log_in().ask("EPSV").split("|")[3])
        intruder = socket.create_connection(("127.0.0.1", port), LONG_S, source_address=("127.0.0.2", 0))
        with intruder, suppress(ConnectionError):
            intruder.sendall(JOB)
            assert intruder.recv(1) == b""
        assert alice.ask("STOR /queue/x.img").startswith("150")
        with socket.create_connection(("127.0.0.1", port), LONG_S) as data:
            data.sendall(JOB)
        the_job(house, alice.reply())


def test_active_connection_that_is_refused_ends_the_command(house: House) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with house.connect() as alice:
            alice.log_in().send(f"PORT 127,0,0,1,{port // 256},{port % 256}", "NOOP")
            assert alice.reply().startswith("425")
            assert alice.reply().startswith("200")


def test_commands_after_port_wait_for_its_connection(house: House) -> None:
    house.publish("a-job", {"output.log": b"hello"})
    with socket.create_server(("127.0.0.1", 0)) as listener, house.connect() as alice:
        port = listener.getsockname()[1]
        alice.log_in().send(f"PORT 127,0,0,1,{port // 256},{port % 256}", "RETR /done/a-job/output.log", "NOOP")
        with listener.accept()[0] as data, data.makefile("rb") as file:
            assert file.read() == b"hello"
        assert [alice.reply()[:3] for _ in range(4)] == ["200", "125", "226", "200"]


def test_end_of_an_active_connection_does_not_touch_another_session(house: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, house.connect() as alice:
        port = listener.getsockname()[1]
        alice.log_in().send(f"PORT 127,0,0,1,{port // 256},{port % 256}", "NLST")
        with listener.accept()[0] as data:
            assert data.recv(100) == b"README.txt\r\ndone\r\nlayers\r\nqueue\r\nrunning\r\nstatus.json\r\n"
            assert data.recv(100) == b""
        assert [alice.reply()[:3] for _ in range(3)] == ["200", "125", "226"]
        # These have the descriptors that the data connection had.
        others = [house.connect().log_in() for _ in range(3)]
        assert alice.ask("EPSV").startswith("229")
        for other in others:
            assert other.ask("NOOP").startswith("200")
            other.close()


def test_only_configured_passive_ports_are_used(tmp_path: Path) -> None:
    port = ports.free()
    with serving(tmp_path, passive_ports=f"{port}-{port}") as house, house.connect() as alice:
        alice.log_in()
        with socket.create_server(("127.0.0.1", port)):
            assert alice.ask("EPSV").startswith("425")
        for _ in range(3):
            assert alice.ask("EPSV") == f"229 Entering extended passive mode (|||{port}|)."


@pytest.mark.parametrize("text", ["60000", "60100-60000", "0-10", "1-70000", "a-b", "-", "60000-60100-60200", "1,2"])
def test_impossible_passive_ports_are_an_error_that_names_the_key(text: str) -> None:
    with pytest.raises(ConfigError, match=r"ftp\.passive_ports: expected .*60000-60100"):
        passive_ports(text)


def test_passive_ports_are_a_range_with_both_ends() -> None:
    assert passive_ports(" 60000 - 60002 ") == [60000, 60001, 60002]
    assert passive_ports("7-7") == [7]
    assert passive_ports("") is None


@pytest.mark.parametrize("address", ["example.org", "::1", "1.2.3", "1,2,3,4"])
def test_impossible_masquerade_address_is_an_error_that_names_the_key(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match=r"ftp\.masquerade_address"), serving(tmp_path, masquerade_address=address):
        pass


# -- limits, and the end -----------------------------------------------------------------------------------------------


def test_running_out_of_descriptors_is_not_the_end_of_the_server(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with house.connect() as alice:
        assert alice.log_in().store("/queue/x.img", JOB).startswith("226"), "all that is started late is there now"
    wait_until(house.is_quiet, "the session is forgotten")
    with ExitStack() as held:
        late = [held.enter_context(socket.socket()) for _ in range(8)]
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (late[-1].fileno() + 1, hard))
            for client in late:
                client.settimeout(LONG_S)
                client.connect(house.server.address)
            # What is told stays told; that nobody listens lasts a second, which a busy host may sleep through.
            wait_until(lambda: "no new sessions" in caplog.text, "the server pauses")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for client in late:
            assert client.recv(100).startswith(b"220")


def test_port_that_is_taken_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConstruirError, match="--port"),
        serving(tmp_path, port=taken.getsockname()[1]),
    ):
        pass


def test_stop_before_run_and_close_twice_do_no_harm(tmp_path: Path) -> None:
    with serving(tmp_path) as house:
        house.server.stop()
        house.thread.join(LONG_S)
        house.server.run()
        house.server.close()


def test_close_ends_sessions_in_every_state_and_keeps_what_was_being_received(tmp_path: Path) -> None:
    with serving(tmp_path) as house:
        idle, listing, sending, checking, guessing = (house.connect() for _ in range(5))
        listing.log_in().passive().close()
        data = sending.log_in().begin("/queue/x.img")
        guessing.send("USER alice", "PASS wrong password")
        checking.log_in()
        with held_check():
            data.sendall(JOB)
            with checking.begin("/queue/y.img") as other_data:
                other_data.sendall(JOB)
            wait_until(lambda: is_held(house), "the check has begun")
            house.server.stop()
            house.thread.join(LONG_S)
        house.server.close()
        assert house.names("queue") == []
        assert set(house.kept()) <= {"x.img", "y.img"}
        for session in (idle, listing, sending, checking, guessing):
            with suppress(ConnectionResetError):
                while session.reply():
                    pass
            session.close()
        data.close()


def test_what_happened_is_in_the_log(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "construir.ftp")
    house.publish("a-job", {"output.log": b"hello"})
    with house.connect() as alice:
        alice.log_in()
        job_id = alice.store("/queue/x.img", JOB).split()[4].rstrip(",")
        alice.store("/queue/y.img", b"")
        alice.fetch("RETR /done/a-job/output.log")
    said = "\n".join(caplog.messages)
    assert "alice@127.0.0.1: logged in" in said
    assert f"Accepted as job {job_id}" in said
    assert "'y.img'" in said
    assert "550 Refused" in said
    fetched = "alice@127.0.0.1: fetched '/done/a-job/output.log', 5 bytes"
    wait_until(lambda: fetched in caplog.messages, "the log says so")


def test_judge_that_never_came_is_our_fault_and_the_next_upload_has_another(house: House) -> None:
    with house.connect() as alice:
        with held_check():
            with alice.log_in().begin("/queue/x.img") as data:
                data.sendall(JOB)
            wait_until(lambda: is_held(house), "the check has begun")
            os.kill(judge_server_pids()[0], signal.SIGKILL)
        assert alice.reply().startswith("451 ")
        assert house.is_untouched()
        assert alice.store("/queue/x.img", JOB).startswith("226")


def test_fault_of_ours_is_not_told_as_the_uploads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(tmp_path) as house, house.connect() as alice:
        queue = house.spool.state("queue")
        with held_check():
            with alice.log_in().begin("/queue/x.img") as data:
                data.sendall(JOB)
            wait_until(lambda: is_held(house), "the check has begun")
            queue.rename(queue.with_name("gone"))
        reply = alice.reply()
        assert reply.startswith("451 ")
        assert str(tmp_path) not in reply
        assert "could not be admitted" in caplog.text
        queue.with_name("gone").rename(queue)
        assert house.is_untouched()


def test_gate_limits_are_the_configured_ones(tmp_path: Path) -> None:
    gate = GateSection(filesystems=("ext4",))
    with serving(tmp_path, gate) as house, house.connect() as alice:
        assert alice.log_in().store("/queue/x.img", JOB).startswith("550 Refused: ")
        assert house.is_untouched()
