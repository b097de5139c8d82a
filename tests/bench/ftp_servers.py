"""Our FTP server and its peers, running side by side, and what can be asked of each from outside."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from construir_ftp.ftp.users import Users
from tests.bench import ftp_peers
from tests.bench.ftp_peers import Place
from tests.support.appliance import NAME, PASSWORD

OURS = "construir"
_UP_S = 30
_CONFIG = """
[spool]
min_free = "64MiB"
[ftp]
max_upload = "64GiB"
max_sessions = 2000
max_sessions_per_address = 2000
max_sessions_per_contributor = 2000
login_timeout = "10min"
[tls]
certificate = "{certificate}"
[gate]
max_image = "64GiB"
"""


@dataclass(frozen=True)
class Server:
    """A running server. Contributors send to `inbox`, which on the host is `uploads`."""

    name: str
    port: int
    inbox: str
    uploads: Path
    process: "subprocess.Popen[bytes]" = field(repr=False)

    def url(self, path: str) -> str:
        """The address of a path."""
        return f"ftp://127.0.0.1:{self.port}{path}"

    def memory_bytes(self) -> int:
        """Memory of all its processes; what several share is divided among them (Pss, proc(5))."""
        return sum(map(_pss_bytes, self._processes()))

    def cpu_s(self) -> float:
        """Processor time that its processes have taken up to now, and those of its that have ended, in seconds."""
        return sum(map(_cpu_s, self._processes()))

    def _processes(self) -> set[int]:
        parents = _parents()
        found = more = {self.process.pid}
        while more:
            more = {pid for pid, parent in parents.items() if parent in found} - found
            found = found | more
        return found

    def wait_until_up(self) -> None:
        """Wait for its greeting."""
        deadline = time.monotonic() + _UP_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), _UP_S) as client:
                assert client.recv(4).startswith(b"220"), self.name
                return
            assert self.process.poll() is None, f"{self.name} has ended"
            assert time.monotonic() < deadline, f"{self.name} does not answer"
            time.sleep(0.05)

    def stop(self) -> None:
        """End all of its processes."""
        started = self._processes()
        self.process.terminate()
        for pid in started - {self.process.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _parents() -> dict[int, int]:
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found[int(entry.name)] = int(_stat(int(entry.name))[1])
    return found


def _stat(pid: int) -> list[str]:
    """Of proc(5)'s /proc/PID/stat what comes after the name, from the third field on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _cpu_s(pid: int) -> float:
    """Fields 14 to 17: user and system time, and those of the children that were waited for."""
    with contextlib.suppress(OSError):
        return sum(map(int, _stat(pid)[11:15])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _pss_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        pss = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        return int(pss[1]) * 1024 if pss else 0
    return 0


def install(place: Place) -> dict[str, int]:
    """Get all of them ready to be started, ours first: by name the port of each."""
    if os.geteuid() != 0:
        sys.exit("the peers need root: they change users, and have an /etc of their own")
    place.path.chmod(0o755)
    place.spool.mkdir()
    ports = dict(zip((OURS, *ftp_peers.NAMES), _free_ports(1 + len(ftp_peers.NAMES)), strict=True))
    ftp_peers.unpack(place)
    ftp_peers.configure(place, ports)
    _configure_ours(place)
    return ports


@contextlib.contextmanager
def running(place: Place, ports: dict[str, int]) -> Iterator[list[Server]]:
    """All of them."""
    with contextlib.ExitStack() as stack:
        servers = []
        for name, port in ports.items():
            server = _start_ours(place, port) if name == OURS else _start_peer(place, name, port)
            stack.callback(server.stop)
            server.wait_until_up()
            servers.append(server)
        yield servers


def _configure_ours(place: Place) -> None:
    _configuration(place).write_text(_CONFIG.format(certificate=place.certificate))
    Users(place.spool / "users.toml").add(NAME, PASSWORD)


def _configuration(place: Place) -> Path:
    return place.path / "construir.toml"


def _start_ours(place: Place, port: int) -> Server:
    argv = [sys.executable, "-m", "construir_ftp", "serve", "ftp", f"--port={port}"]
    argv += [f"--config={_configuration(place)}", f"--spool={place.spool}"]
    return Server(OURS, port, "/queue/", place.spool / "queue", _spawn(place, OURS, argv))


def _start_peer(place: Place, name: str, port: int) -> Server:
    return Server(name, port, "/", place.uploads, _spawn(place, name, ftp_peers.argv(place, name, port)))


def _spawn(place: Place, name: str, argv: Sequence[str]) -> "subprocess.Popen[bytes]":
    with (place.path / f"{name}.log").open("wb") as log:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]
