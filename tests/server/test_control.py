"""Promises of the control connection that hostile clients have tried: what test_command_fuzz found stays mended."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pyftpdlib.ioloop import AsyncChat

from tests.support import images
from tests.support.ftpclient import Control, House, reset, wait_until

JOB = images.image("ext2", 2**20)


@contextmanager
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


@pytest.mark.parametrize("command", [b"CWD /x\n226 Done.", b"TYPE A\r226 Done.", b"X\nQUIT", b"HELP\0", b"MKD d\r"])
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
