"""Whose a port is: a process's own, that of one it has started, or a stranger's."""

import os
import socket
import subprocess
import sys

import pytest

from construir_ftp.appliance import listeners

_LISTEN = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); "


def port_of(listener: "subprocess.Popen[str]") -> int:
    assert listener.stdout is not None
    return int(listener.stdout.readline())


def test_a_port_is_the_process_s_that_listens_and_its_parents_and_nobody_elses() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as own,
        subprocess.Popen([sys.executable, "-c", _LISTEN + "time.sleep(3600)"], stdout=-1, text=True) as child,
    ):
        try:
            port = port_of(child)
            assert listeners.has(child.pid, port)
            assert listeners.has(os.getpid(), port), "its child listens"
            assert not listeners.has(child.pid, own.getsockname()[1])
            with socket.create_connection(("127.0.0.1", port)) as spoken:
                assert not listeners.has(child.pid, spoken.getsockname()[1]), "nobody listens on it"
        finally:
            child.kill()


def test_an_address_of_ipv6_counts() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as own:
        assert listeners.has(os.getpid(), own.getsockname()[1])


@pytest.mark.root("it becomes another user")
@pytest.mark.parametrize(("user", "expected"), [(65534, b"1"), (0, b"0")])
def test_what_may_not_be_seen_counts_by_its_user(user: int, expected: bytes) -> None:
    """Another user's process, asked about by one who may not see what it has open."""
    with (
        subprocess.Popen([sys.executable, "-c", _LISTEN + "time.sleep(3600)"], stdout=-1, text=True, user=user) as one,
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], user=65534) as other,
    ):
        try:
            port = port_of(one)
            asked = f"from construir_ftp.appliance import listeners; print(int(listeners.has({other.pid}, {port})))"
            argv = ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", sys.executable, "-c", asked]
            assert subprocess.run(argv, capture_output=True, check=True).stdout.strip() == expected
        finally:
            one.kill()
            other.kill()
