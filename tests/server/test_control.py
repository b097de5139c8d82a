"""Promises of the control connection that hostile clients have tried: what test_command_fuzz found stays mended."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from pyftpdlib.ioloop import AsyncChat

from tests.support import images
from tests.support.ftpclient import LONG_S, PASSWORD, Control, House, reset, wait_until

JOB = images.image("ext2", 2**20)


@contextlib.contextmanager
def standing_still(house: House) -> Iterator[None]:
    """Within, the event loop does nothing; what comes meanwhile comes together."""
    stands, goes_on = threading.Event(), threading.Event()

    def stand_still() -> None:
        stands.set()
        goes_on.wait()

    house.listener.bell.call(stand_still)
    stands.wait()
    try:
        yield
    finally:
        goes_on.set()


@pytest.mark.parametrize("command", [b"CWD /x\r226 Done.", b"TYPE A\r226 Done.", b"X\rQUIT", b"HELP\0", b"MKD d\r"])
def test_command_with_the_end_of_a_line_in_it_is_refused_and_never_repeated(alice: Control, command: bytes) -> None:
    assert alice.ask(command) == "501 A command can't hold a NUL, CR or LF."
    assert alice.ask("NOOP") == "200 Nothing is done."


def test_command_that_comes_in_pieces_while_another_is_under_way_is_obeyed_whole(house: House, alice: Control) -> None:
    with alice.begin("/queue/x.img") as data:
        alice.socket.sendall(b"NOOP\r\nMKD /queue/whole-")
        data.sendall(JOB)
    assert alice.reply().startswith("226")
    assert alice.reply().startswith("200")
    assert alice.ask("name").startswith('257 "/queue/whole-name"')


def test_abort_of_a_data_connection_that_is_being_made_is_a_reply_to_both_commands(alice: Control) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        alice.send(f"PORT 127,0,0,1,{port // 256},{port % 256}", "ABOR", "NOOP")
        assert [alice.reply()[:3] for _ in range(3)] == ["425", "225", "200"]


def test_client_that_resets_both_connections_of_a_download_ends_its_session_and_no_other(
    house: House, alice: Control, caplog: pytest.LogCaptureFixture
) -> None:
    house.publish("a-job", {"large.img": bytes(32 * images.MIB)})
    with house.connect() as anyone:
        data = anyone.log_in("anonymous").passive()
        assert anyone.ask("RETR /done/a-job/large.img").startswith(("125", "150"))
        assert data.recv(1)
        with standing_still(house):
            reset(data)
            anyone.cut()
        wait_until(lambda: len(house.listener.sessions) == 1, "that session has ended")
    assert alice.ask("NOOP") == "200 Nothing is done."
    assert "Traceback" not in caplog.text


def test_data_connection_closed_while_an_answer_is_awaited_leaves_no_timer(house: House, alice: Control) -> None:
    answer = threading.Event()
    house.listener.background.read(answer.wait, lambda _: None)
    (session,) = house.listener.sessions
    data = alice.passive()
    wait_until(lambda: session.data_channel, "the data connection is accepted")
    alice.send("SITE STATUS x")
    wait_until(lambda: session.is_held, "the answer is awaited")
    data.close()
    wait_until(lambda: session.data_channel is None, "the data connection is forgotten")
    answer.set()
    assert alice.reply().startswith("550")
    tasks = house.listener.ioloop.sched._tasks
    wait_until(lambda: sum(not task.cancelled for task in list(tasks)) == 1, "only the idle timer is left")


class Troublemaker(AsyncChat):  # type: ignore[misc] # pyftpdlib is untyped
    """A member of the loop that can't be closed."""

    def handle_close(self) -> None:
        """Called when the other end is closed."""
        self.del_channel()
        raise ZeroDivisionError

    def writable(self) -> bool:
        """Never."""
        return False

    def handle_error(self) -> None:
        """Called in the handler of its exception."""
        self.close()


def test_error_at_the_end_of_one_connection_is_not_the_end_of_the_server(house: House, alice: Control) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    made = list[Troublemaker]()

    def add() -> None:
        made.append(Troublemaker(ours, house.listener.ioloop))
        made[0].modify_ioloop_events(house.listener.ioloop.WRITE)

    house.listener.bell.call(add)
    wait_until(lambda: made, "it is there")
    reset(theirs)
    theirs.close()
    wait_until(lambda: made[0]._closed, "it is closed")
    assert alice.ask("NOOP") == "200 Nothing is done."


def test_name_with_terminal_codes_is_escaped_in_the_log_of_its_refusal(
    alice: Control, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "construir.ftp")
    alice.send("EPSV", "REST 5", b"STOR /queue/\x1b[2Jx.img")
    assert [alice.reply()[:3] for _ in range(3)] == ["229", "350", "554"]
    assert "nothing is kept of ?[2Jx.img" in caplog.text
    assert all(record.getMessage().isprintable() for record in caplog.records)


# -- what other clients say ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_line_may_end_in_lf_alone(alice: Control, end: bytes) -> None:
    alice.socket.sendall(b"NOOP" + end + b"TYPE A" + end + b"\n" + b"SYST" + end)
    assert [alice.reply()[:3] for _ in range(4)] == ["200", "200", "500", "215"]


@pytest.mark.parametrize(
    ("said", "code"),
    [("A", 200), ("A N", 200), ("a n", 200), ("I", 200), ("L 8", 200), ("A T", 504), ("A C", 504), ("E", 504)],
)
def test_types_that_are_taken(alice: Control, said: str, code: int) -> None:
    assert alice.ask(f"TYPE {said}").startswith(str(code))


@pytest.mark.parametrize(
    "line", ["GET / HTTP/1.1", "post /queue/x.img HTTP/1.1", "PUT /x HTTP/1.0", "PRI * HTTP/2.0", "OPTIONS * HTTP/1.1"]
)
@pytest.mark.parametrize("is_logged_in", [True, False])
def test_session_ends_at_the_first_line_of_http(house: House, line: str, is_logged_in: bool) -> None:
    with house.connect() as browser:
        if is_logged_in:
            browser.log_in()
        else:
            browser.reply()
        browser.send(line, "Host: x", "", "USER alice", f"PASS {PASSWORD}", "DELE /queue/x.img")
        assert browser.reply() == "421 This is FTP, and not HTTP."
        with contextlib.suppress(ConnectionError):
            assert browser.reply() == "", "nothing behind it is obeyed"


@pytest.mark.parametrize("size", [1, 1000, len(JOB)])
def test_upload_may_be_under_way_before_its_command(house: House, alice: Control, size: int) -> None:
    with alice.passive() as data:
        sender = threading.Thread(target=data.sendall, args=(JOB[:size],))
        sender.start()
        for _ in range(3):
            assert alice.ask("NOOP").startswith("200")
        assert alice.ask("STOR /queue/x.img").startswith("125")
        sender.join()
        data.sendall(JOB[size:])
    assert alice.reply().startswith("226 Accepted")
    (job,) = house.spool.jobs("queue")
    assert job.upload.read_bytes() == JOB


def test_status_of_a_session_tells_no_address_and_nothing_before_login(house: House) -> None:
    with house.connect() as control:
        control.reply()
        assert control.ask("STAT") == "530 Log in with USER and PASS first."
        said = control.identify().ask("STAT")
        assert said.startswith("211-")
        assert "Logged in as: alice" in said
        assert house.server.address[0] not in said


def test_connections_are_kept_alive(house: House, alice: Control) -> None:
    with alice.begin("/queue/x.img") as data:
        data.sendall(JOB[:1000])
        (session,) = house.listener.sessions
        for sock in (session.socket, session.data_channel.socket):
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
        assert alice.ask("ABOR").startswith("426")


def test_restart_position_is_for_the_next_transfer_whatever_that_is(house: House, alice: Control) -> None:
    house.publish("a-job", {"output.log": b"hello"})
    for other in ("NLST /done", "LIST /done", "MLSD /done"):
        assert alice.ask("REST 3").startswith("350")
        alice.fetch(other)
        assert alice.fetch("RETR /done/a-job/output.log") == b"hello"
    alice.ask("REST 3")
    assert alice.ask("RETR /done/a-job/output.log").startswith("425")
    assert alice.fetch("RETR /done/a-job/output.log") == b"hello"
    alice.ask("REST 3")
    assert alice.fetch("RETR /done/a-job/output.log") == b"lo", "PASV, EPSV, TYPE and the like may come between"


def test_reply_to_a_download_leaves_after_its_client_has_closed_the_data_connection(
    house: House, alice: Control
) -> None:
    house.publish("a-job", {"output.log": b"hello"})
    # A client that reads all of a packet for one reply would lose the other.
    for _ in range(20):
        data = alice.passive()
        alice.send("RETR /done/a-job/output.log")
        assert data.recv(100) == b"hello"
        assert data.recv(100) == b""
        assert alice.socket.recv(1000).count(b"\r\n") == 1
        data.close()
        assert alice.socket.recv(1000).startswith(b"226")


def test_reply_to_a_download_comes_although_its_client_leaves_the_data_connection_open(
    house: House, alice: Control
) -> None:
    house.publish("a-job", {"output.log": b"hello"})
    with alice.passive() as data:
        assert alice.ask("RETR /done/a-job/output.log").startswith("125")
        assert alice.reply().startswith("226")
        assert data.recv(100) == b"hello"


def test_data_connection_from_another_address_is_told_if_no_other_comes(house: House, alice: Control) -> None:
    for when in ("before the command", "after it"):
        port = int(alice.ask("EPSV").split("|")[3])
        if when == "after it":
            assert alice.ask("STOR /queue/x.img").startswith("150")
        with socket.create_connection(("127.0.0.1", port), LONG_S, source_address=("127.0.0.2", 0)) as foreign:
            assert foreign.recv(1) == b""
        if when == "before the command":
            assert alice.ask("STOR /queue/x.img").startswith("150")
        reply = alice.reply()
        assert reply.startswith("425 No data connection was opened. One came from 127.0.0.2, and this session is from")
    assert alice.store("/queue/x.img", JOB).startswith("226")
