"""Web servers that publish a site: our own command, and Debian's nginx and Caddy with the configurations in etc/."""

import contextlib
import http.client
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support import ports
from tests.support.places import PROJECT

PROGRAMS = PROJECT / ".venv" / "programs"
_SITE = "/var/lib/construir/spool/site"
_LONG_S = 120
_TRIES = 5


class Answer(NamedTuple):
    """What a server has said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        """The type of the body, without blanks."""
        return self.headers.get("content-type", "").replace(" ", "").lower()


def ask(port: int, path: str, method: str = "GET", **headers: str) -> Answer:
    """One request, its path as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_LONG_S)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        told = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, told, answer.read())


def _nginx(site: Path, place: Path, port: int) -> list[str | Path]:
    text = (PROJECT / "etc/nginx.conf").read_text().replace(_SITE, str(site))
    text = text.replace("listen 80;", f"listen 127.0.0.1:{port};").replace("listen [::]:80;", "")
    user = "user root root;" if os.geteuid() == 0 else ""
    temporary = "".join(
        f"{kind}_temp_path {place}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (place / "nginx.conf").write_text(
        f"{user} pid {place}/pid; worker_processes 1; error_log stderr; events {{ }}"
        f" http {{ access_log off; {temporary} {text} }}"
    )
    return [PROGRAMS / "usr/sbin/nginx", "-p", place, "-e", "stderr", "-c", place / "nginx.conf", "-g", "daemon off;"]


def _caddy(site: Path, place: Path, port: int) -> list[str | Path]:
    text = (PROJECT / "etc/Caddyfile").read_text().replace(_SITE, str(site))
    text = text.replace("construir.example.org {", f"http://127.0.0.1:{port} {{")
    (place / "Caddyfile").write_text(f"{{\n\tadmin off\n\tauto_https off\n}}\n{text}")
    return [PROGRAMS / "usr/bin/caddy", "run", "--config", place / "Caddyfile", "--adapter", "caddyfile"]


_OTHERS: dict[str, Callable[[Path, Path, int], list[str | Path]]] = {"nginx": _nginx, "caddy": _caddy}
NAMES = ("construir", *_OTHERS)


@contextlib.contextmanager
def running(name: str, site: Path, place: Path) -> Iterator[int]:
    """The port of a web server that publishes `site`; what it needs is in `place`."""
    place.mkdir()
    with contextlib.ExitStack() as stack:
        yield _start_ours(site, place, stack) if name == "construir" else _start_other(name, site, place, stack)


def _start_ours(site: Path, place: Path, stack: contextlib.ExitStack) -> int:
    (place / "construir.toml").write_text(f'[site]\npath = "{site}"\n')
    argv: list[str | Path] = [
        sys.executable,
        "-m",
        "construir_ftp",
        "serve",
        "web",
        "--port=0",
        f"--config={place / 'construir.toml'}",
    ]
    process = _spawn(argv, place, stack)
    deadline_s = time.monotonic() + _LONG_S
    while not (found := re.search(r"pages on http://127\.0\.0\.1:(\d+)/", (place / "log").read_text())):
        assert process.poll() is None, (place / "log").read_text()
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    return int(found[1])


def _start_other(name: str, site: Path, place: Path, stack: contextlib.ExitStack) -> int:
    """These take no port that is bound already: it is tried again where somebody else was quicker."""
    for _ in range(_TRIES):
        port = ports.free()
        process = _spawn(_OTHERS[name](site, place, port), place, stack)
        if _listens(port, process):
            return port
    raise AssertionError((place / "log").read_text())


def _listens(port: int, process: "subprocess.Popen[bytes]") -> bool:
    deadline_s = time.monotonic() + _LONG_S
    while process.poll() is None and time.monotonic() < deadline_s:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return True
        time.sleep(0.05)
    return False


def _spawn(argv: list[str | Path], place: Path, stack: contextlib.ExitStack) -> "subprocess.Popen[bytes]":
    log = stack.enter_context((place / "log").open("ab"))
    env = {**os.environ, "HOME": str(place), "XDG_DATA_HOME": str(place), "XDG_CONFIG_HOME": str(place)}
    process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env)
    stack.callback(process.wait, _LONG_S)
    stack.callback(process.terminate)
    return process
