"""Promises of data connections: they go to and come from the client that asked for them, and nobody else."""

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import images
from tests.support.ftpclient import LONG_S, Control, House, serving
from tests.support.ports import free

JOB = images.image("ext2", 2**20)

needs_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 on this machine")


def test_sessions_that_hold_every_passive_port_cost_the_next_a_425_and_never_a_random_port(tmp_path: Path) -> None:
    first = free(3)
    with serving(tmp_path, passive_ports=f"{first}-{first + 2}") as house, ExitStack() as stack:
        sessions = [stack.enter_context(house.connect()).log_in() for _ in range(4)]
        ports = {int(session.ask("EPSV").split("|")[3]) for session in sessions[:3]}
        assert ports == set(range(first, first + 3))
        for command in ("EPSV", "PASV"):
            assert sessions[3].ask(command) == "425 No port is free for a data connection; try again later."
        assert sessions[3].ask("STOR /queue/x.img").startswith("425")
        sessions[0].close()
        while not (reply := sessions[3].ask("EPSV")).startswith("229"):
            assert reply.startswith("425")
        assert int(reply.split("|")[3]) in ports
        assert sessions[3].store("/queue/x.img", JOB).startswith("226")


def test_too_few_passive_ports_are_told_to_the_operator(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(tmp_path, passive_ports="50000-50001", max_sessions=3):
        assert "2 ports for up to 3 sessions" in caplog.text
    caplog.clear()
    with serving(tmp_path / "again", passive_ports="50000-50002", max_sessions=3):
        assert "ports for up to" not in caplog.text


def test_masquerade_address_is_said_in_pasv_and_not_listened_on(tmp_path: Path) -> None:
    with serving(tmp_path, masquerade_address="192.0.2.7") as house, house.connect() as alice:
        words = alice.log_in().ask("PASV").partition("(")[2].rstrip(").").split(",")
        assert words[:4] == ["192", "0", "2", "7"]
        with socket.create_connection(("127.0.0.1", int(words[4]) * 256 + int(words[5])), LONG_S) as data:
            assert alice.ask("STOR /queue/x.img").startswith(("125", "150"))
            data.sendall(JOB)
        assert alice.reply().startswith("226")
        assert alice.store("/queue/x.img", JOB).startswith("226"), "EPSV names no address"


@pytest.mark.parametrize("command", ["PORT 127,0,0,1,200,10", "EPRT |1|127.0.0.1|51210|", "PASV", "EPSV 2"])
def test_after_epsv_all_only_epsv_opens_data_connections(tmp_path: Path, command: str) -> None:
    with serving(tmp_path) as house, house.connect() as alice:
        assert alice.log_in().ask("EPSV ALL").startswith("220")
        assert alice.ask(command).startswith("5")
        assert alice.ask("LIST").startswith("425")
        assert alice.store("/queue/x.img", JOB).startswith("226")


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("EPSV 1", "229"),
        ("EPSV 2", "522 Network protocol not supported, use (1)."),
        ("EPSV 3", "501"),
        ("EPSV x", "501"),
        ("EPRT |2|::1|51210|", "522"),
        ("EPRT |3|127.0.0.1|51210|", "501"),
        ("EPRT |1|127.0.0.1|99999|", "501"),
        ("EPRT |1|127.0.0.1|", "501"),
        ("EPRT |", "501"),
        ("EPRT |1|1.2.3|51210|", "501"),
        ("PORT 127,0,0,1,0,0", "501"),
        ("PORT 0,0,0,0,200,10", "501"),
        ("PORT 255,255,255,255,200,10", "501"),
        ("PORT -1,0,0,1,200,10", "501"),
    ],
)
def test_impossible_addresses_are_refused_and_the_session_goes_on(tmp_path: Path, command: str, reply: str) -> None:
    with serving(tmp_path) as house, house.connect() as alice:
        said = alice.log_in().ask(command)
        assert said.startswith(reply), said
        assert alice.ask("NOOP").startswith("200")


def active(control: Control, host: str, command: str) -> bytes:
    """What NLST sends to a listener on `host` that is named with `command`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        listener.settimeout(LONG_S)
        control.send(command.format(listener.getsockname()[1]), "NLST /")
        with listener.accept()[0] as data, data.makefile("rb") as file:
            listed = file.read()
    assert [control.reply()[:3] for _ in range(3)] == ["200", "125", "226"]
    return listed


@needs_ipv6
@pytest.mark.parametrize("written", ["::1", "0:0:0:0:0:0:0:1", "0000::0001"])
def test_ipv6_address_may_be_written_in_any_way(tmp_path: Path, written: str) -> None:
    with serving(tmp_path, address="::1") as house, house.connect() as alice:
        assert b"queue\r\n" in active(alice.log_in(), "::1", f"EPRT |2|{written}|{{}}|")


@needs_ipv6
@pytest.mark.parametrize(
    "command", ["EPRT |2|::2|51210|", "EPRT |2|::1|1023|", "EPRT |2|x|51210|", "EPRT |1|127.0.0.1|51210|"]
)
def test_bounce_by_ipv6_is_refused(tmp_path: Path, command: str) -> None:
    with serving(tmp_path, address="::1") as house, house.connect() as alice:
        assert alice.log_in().ask(command).startswith("501")
        assert alice.ask("LIST").startswith("425")


def by_ipv4(house: House) -> Control:
    """A session by IPv4 with a server that listens on IPv6."""
    return Control(("127.0.0.1", house.server.address[1])).log_in()


@needs_ipv6
def test_dual_stack_server_treats_a_client_by_ipv4_as_such(tmp_path: Path) -> None:
    with serving(tmp_path, address="::") as house, by_ipv4(house) as alice:
        assert alice.ask("EPSV 1").startswith("229")
        assert alice.ask("EPSV 2") == "522 Network protocol not supported, use (1)."
        assert alice.ask("PASV").startswith("227 Entering passive mode (127,0,0,1,")
        assert b"queue\r\n" in active(alice, "127.0.0.1", "EPRT |1|127.0.0.1|{}|")
        assert alice.ask("PORT 127,0,0,2,200,10").startswith("501")
        assert alice.store("/queue/x.img", JOB).startswith("226")


@needs_ipv6
def test_masquerade_address_is_said_to_clients_by_ipv4_of_a_dual_stack_server_too(tmp_path: Path) -> None:
    with serving(tmp_path, address="::", masquerade_address="192.0.2.7") as house, by_ipv4(house) as alice:
        assert alice.ask("PASV").startswith("227 Entering passive mode (192,0,2,7,")
        assert alice.store("/queue/x.img", JOB).startswith("226"), "EPSV names no address"
