"""Whatever strangers do, and however often, the log gets a few lines of it a minute, and a count."""

import itertools
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.ftpclient import LONG_S, Control, House, serving, wait_until
from tests.support.tlsclient import tls_section

TIMES = 60
# In an interval the first five of an address are told at once; then there is one line with a count.
FEW = 6
NUMBERS = itertools.count()


def refused_connection(house: House) -> None:
    """One more connection than there may be."""
    with house.connect() as late:
        assert late.reply().startswith("421")


def wrong_password(house: House) -> None:
    """A guess, at an account that isn't there; at another one each time, since each name has a pause of its own."""
    with house.connect("127.0.0.3") as guesser:
        guesser.reply()
        guesser.ask(f"USER mallory{next(NUMBERS)}")
        assert guesser.ask("PASS x")[:3] in ("530", "421")


def foreign_data_connection(house: House) -> None:
    """A data connection that isn't from the address of its session."""
    with house.connect("127.0.0.3") as control:
        port = int(control.log_in("anonymous").ask("EPSV").split("|")[3])
        with socket.create_connection(("127.0.0.1", port), LONG_S, source_address=("127.0.0.4", 0)) as foreign:
            assert not foreign.recv(1)


def failed_handshake(house: House) -> None:
    """What is no TLS, in place of it."""
    with house.connect("127.0.0.3") as control:
        control.reply()
        assert control.ask("AUTH TLS").startswith("234")
        control.send("GET / HTTP/1.1")
        with suppress(ConnectionError):
            while control.socket.recv(1000):
                pass


def http_request(house: House) -> None:
    """What a browser says."""
    with house.connect("127.0.0.3") as control:
        control.reply()
        assert control.ask("GET / HTTP/1.1").startswith("421")


def refused_upload(house: House) -> None:
    """An upload by anyone."""
    with house.connect("127.0.0.3") as control:
        control.log_in("anonymous")
        assert control.ask("EPSV").startswith("229")
        assert control.ask("STOR /queue/x.img").startswith("550")


def fetched_file(house: House) -> None:
    """A file that anyone may read."""
    with house.connect() as control:
        assert control.log_in("anonymous").fetch("RETR /README.txt")


@pytest.mark.parametrize(
    ("cause", "kind", "sessions", "times"),
    [
        (refused_connection, "turned away", 1, TIMES),
        # Each of them costs a tenth of a second of all processors, on purpose.
        (wrong_password, "wrong name or password", 64, 10),
        (foreign_data_connection, "dropped a data connection", 64, TIMES),
        (failed_handshake, "no TLS", 64, TIMES),
        (http_request, "", 64, TIMES),
        (refused_upload, "uploads refused", 64, TIMES),
        (fetched_file, "fetched", 64, TIMES),
    ],
)
def test_lines_that_anyone_can_cause_are_few_and_counted(
    tmp_path: Path,
    certificate_files: tuple[Path, Path],
    caplog: pytest.LogCaptureFixture,
    cause: Callable[[House], None],
    kind: str,
    sessions: int,
    times: int,
) -> None:
    caplog.set_level("INFO", "construir.ftp")
    with (
        serving(
            tmp_path,
            tls=tls_section(certificate_files),
            max_sessions_per_address=sessions,
            max_wrong_password_pause="10ms",
        ) as house,
        house.connect() as first,
    ):
        first.log_in("anonymous")
        caplog.clear()
        for _ in range(times):
            cause(house)
        assert len(caplog.messages) <= 2 * FEW, caplog.messages
    counts = [line for line in caplog.messages if " more in " in line]
    told = [line for line in caplog.messages if line not in counts and "127.0.0." in line]
    if kind:
        assert all(re.fullmatch(rf"({kind}): \d+ more in \d+ s: \d+ from 127\.0\.0\.\d", line) for line in counts)
        assert len(told) + sum(int(line.split(": ")[1].split()[0]) for line in counts) == times
    else:
        assert not told


def test_follower_who_asks_for_the_status_again_and_again_causes_a_line(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "construir.ftp")
    running = house.spool.state("running") / "local.00000000" / "a-job"
    running.mkdir(parents=True)
    (running / "output.log").write_bytes(b"hello\n")
    with house.connect() as alice:
        alice.log_in()
        for _ in range(20):
            alice.fetch("RETR /status.json")
            alice.fetch("RETR /running/a-job/output.log")
        wait_until(lambda: "output.log" in caplog.text, "it is logged")
    assert sum("fetched '/status.json'" in line for line in caplog.messages) == 1
    assert sum("fetched '/running/a-job/output.log'" in line for line in caplog.messages) == 1


def test_contributors_fetches_are_all_told(house: House, alice: Control, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "construir.ftp")
    house.publish("a-job", {"output.log": b"hello\n"})
    for _ in range(20):
        alice.fetch("RETR /done/a-job/output.log")
    wait_until(lambda: sum("fetched" in line for line in caplog.messages) == 20, "each of them is told")
