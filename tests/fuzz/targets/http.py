"""A client of `serve web` that sends anything."""

import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.fuzz.targets import Attempt, Settle
from tests.support.sites import served

_RESULT = "20261122T104102Z-7f3a-hello"
_LONG_S, _MOMENT_S = 60.0, 0.02
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2}) ")


def _site(place: Path) -> Path:
    """A small one."""
    job = place / "done" / _RESULT / "artifacts"
    job.mkdir(parents=True)
    (place / "static").mkdir()
    content = {"index.html": b"<p>", "metrics.prom": b"up 1\n", "static/site.css": b"p {}"}
    content |= {f"done/{_RESULT}/output.log": b"hello\n" * 100, f"done/{_RESULT}/artifacts/x.html": b"<script>"}
    for name, text in content.items():
        (place / name).write_bytes(text)
    return place


def _visit(port: int, data: bytes) -> None:
    """Send it, hear what is said soon, then all there is to be heard."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), _LONG_S) as sock, suppress(ConnectionError):
        sock.sendall(data)
        sock.settimeout(_MOMENT_S)
        with suppress(TimeoutError):
            said += sock.recv(65536)
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(_LONG_S)
        while block := sock.recv(65536):
            said += block
    if said:
        status = _STATUS.match(said)
        assert status, f"no answer: {said[:200]!r}"
        assert status[1] != b"500", f"our own fault: {said[:200]!r}"


@contextmanager
def target() -> Iterator[tuple[Attempt, Settle]]:
    """There is an answer, or an end, and never an error of the server's own."""
    with tempfile.TemporaryDirectory() as name, served(_site(Path(name))) as port:
        yield lambda data: _visit(port, data), lambda: None
