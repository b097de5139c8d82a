"""The site's directory over HTTP, for whoever has no other web server: read-only, and by waitress.

    /NAME.html /static/NAME ...   our own pages, with the types that they have; the public keys as text
    /done/ID/NAME                 what jobs have left: text, or a stream of bytes; never a page
    /running/ID/NAME.log          logs that grow: text, to be followed by Range requests
    /metrics                      metrics.prom

Each path is walked name by name, and no symbolic link is followed but done/ itself. Nothing is written or listed.
"""

import email.utils
import errno
import logging
import math
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import waitress
from waitress import wasyncore

from construir_ftp.errors import ConstruirError, MissingError
from construir_ftp.site.connections import Connection
from construir_ftp.site.tree import INDEX
from construir_ftp.trust.key_place import REVOKED, SIGNERS

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# What strangers have written is opened by no page, and is none itself.
SANDBOX = "sandbox; default-src 'none'; frame-ancestors 'none'"
_TEXT = "text/plain; charset=utf-8"
_BYTES = "application/octet-stream"
_OURS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".xml": "application/atom+xml; charset=utf-8",
    ".txt": _TEXT,
    ".prom": "text/plain; version=0.0.4; charset=utf-8",
    ".pub": _TEXT,
}
_STRANGERS = ("done", "running")
_READABLE = re.compile(r".*\.(log|txt|toml|json|jsonl)|SHA256SUMS(\.sig)?")
_METRICS = "metrics.prom"
_STEP = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)
_THREADS, _MOST_CONNECTIONS, _IDLE_S = 4, 200, 30
_MOST_BODY_BYTES = 1024
# What open(2) says of what is no page; ENXIO of a socket.
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.ENXIO)
_PIECE_BYTES = 256 * 1024

# It tells of each request that waits for a thread.
logging.getLogger("waitress.queue").setLevel(logging.ERROR)

# The page that visitors begin with; until it is there, the site is being written for the first time.
_FRONT = ("/", f"/{INDEX}")
_NO_PAGES = "There are no pages yet. construir serve writes them, soon after its start.\n"
_RETRY_AFTER_S = "5"

_Headers = list[tuple[str, str]]
_Start = Callable[[str, _Headers], object]


class Found(NamedTuple):
    """A file that is published, open, and the headers that say what it is."""

    file: IO[bytes]
    status: os.stat_result
    headers: _Headers


class Application:
    """A WSGI application (PEP 3333) that has a site's directory."""

    def __init__(self, site: Path) -> None:
        self._site = site

    def __call__(self, environment: dict[str, Any], start: _Start) -> Iterable[bytes]:
        """Answer one request."""
        if environment["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _plainly(start, "405 Method Not Allowed", [("Allow", "GET, HEAD")])
        path = environment.get("PATH_INFO", "")
        try:
            found = self._find(path)
        except OSError as error:
            if path in _FRONT and error.errno in _MISSING:
                return _plainly(start, "503 Service Unavailable", [("Retry-After", _RETRY_AFTER_S)], _NO_PAGES)
            return _plainly(start, "404 Not Found" if error.errno in _MISSING else "500 Internal Server Error")
        return _answer(environment, start, found)

    def _find(self, path: str) -> Found:
        # PEP 3333: the path's bytes as if they were latin-1; waitress has decoded it already.
        names = path.encode("latin-1", "replace").decode(errors="replace").split("/")[1:]
        if names == ["metrics"]:
            names = [_METRICS]
        if names[-1:] == [""]:
            names[-1] = INDEX
        if not names or any(not name or name.startswith(".") or "\0" in name for name in names):
            raise FileNotFoundError(errno.ENOENT, "no such page")
        descriptor = self._open(names)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise FileNotFoundError(errno.ENOENT, "no such page")
        file = os.fdopen(descriptor, "rb")
        return Found(file, status, _headers(names, status))

    def _open(self, names: list[str]) -> int:
        """A descriptor of what is there. Raises OSError."""
        *above, last = names
        directory = os.open(self._site, _STEP)
        try:
            for depth, name in enumerate(above):
                no_link = 0 if depth == 0 and name == "done" else os.O_NOFOLLOW
                parent, directory = directory, os.open(name, _STEP | no_link, dir_fd=directory)
                os.close(parent)
            return os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        finally:
            os.close(directory)


def _headers(names: list[str], status: os.stat_result) -> _Headers:
    name = names[-1]
    if names[0] in _STRANGERS:
        kind, policy = _TEXT if _READABLE.fullmatch(name) and len(names) == 3 else _BYTES, SANDBOX
    else:
        kind, policy = _TEXT if name in (SIGNERS, REVOKED) else _OURS.get(Path(name).suffix, _BYTES), POLICY
    return [
        ("Content-Type", kind),
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Cache-Control", "no-cache"),
        ("ETag", f'"{status.st_mtime_ns:x}-{status.st_size:x}"'),
        ("Last-Modified", email.utils.formatdate(status.st_mtime, usegmt=True)),
        ("Accept-Ranges", "bytes"),
    ]


def _answer(environment: dict[str, Any], start: _Start, found: Found) -> Iterable[bytes]:
    """All of a file, a part of it (RFC 9110, 14), or that it has not changed (13.1.2)."""
    headers, size_bytes = found.headers, found.status.st_size
    if environment.get("HTTP_IF_NONE_MATCH") == dict(headers)["ETag"]:
        found.file.close()
        start("304 Not Modified", headers[1:])
        return ()
    first, last, line = 0, size_bytes - 1, "200 OK"
    if (asked := _part(environment.get("HTTP_RANGE", ""), size_bytes)) is not None:
        first, last = asked
        if first > last:
            found.file.close()
            return _plainly(start, "416 Range Not Satisfiable", [("Content-Range", f"bytes */{size_bytes}")])
        line = "206 Partial Content"
        headers.append(("Content-Range", f"bytes {first}-{last}/{size_bytes}"))
    start(line, [*headers, ("Content-Length", str(last - first + 1))])
    if environment["REQUEST_METHOD"] == "HEAD":
        found.file.close()
        return ()
    found.file.seek(first)
    # With it waitress sends the file from its loop, up to Content-Length: no thread waits for a client that is slow.
    wrapped: Iterable[bytes] = environment["wsgi.file_wrapper"](found.file, _PIECE_BYTES)
    return wrapped


def _part(asked: str, size_bytes: int) -> tuple[int, int] | None:
    """The first and the last byte that are asked for; the first is after the last where there is no such part.

    None is all of it: also where several parts are asked for, or what is no range (RFC 9110, 14.2).
    """
    match = _RANGE.fullmatch(asked.strip())
    if match is None or match.groups() == ("", ""):
        return None
    begin, end = match.groups()
    if not begin:
        return max(0, size_bytes - int(end)), size_bytes - 1 if int(end) else -1
    first, last = int(begin), min(int(end) if end else size_bytes - 1, size_bytes - 1)
    if end and int(end) < first:
        return None
    return (first, last) if first < size_bytes else (1, 0)


def _plainly(start: _Start, line: str, more: Iterable[tuple[str, str]] = (), explanation: str = "") -> Iterable[bytes]:
    content = f"{line}\n{explanation}".encode()
    policy = [("Content-Security-Policy", SANDBOX), ("X-Content-Type-Options", "nosniff")]
    start(line, [("Content-Type", _TEXT), ("Content-Length", str(len(content))), *policy, *more])
    return [content]


# -- listening -------------------------------------------------------------------------------------------------


class _Stop(wasyncore.dispatcher):  # type: ignore[misc] # waitress is untyped
    """Ends the loop that it is in once a socket is readable. While the loop goes on, `alive` is called so often."""

    def __init__(
        self, stop: socket.socket, watched: dict[int, Any], alive: Callable[[], object], every_s: float
    ) -> None:
        super().__init__(stop, watched)
        self._alive, self._every_s, self._told_s = alive, every_s, time.monotonic()

    def readable(self) -> bool:
        # The loop asks each time before it waits, which it does for a second at most.
        if time.monotonic() >= self._told_s + self._every_s:
            self._told_s = time.monotonic()
            self._alive()
        return True

    def writable(self) -> bool:
        return False

    def handle_read(self) -> None:
        raise SystemExit  # which waitress takes for the order to end what it does


class Web:
    """A server that listens. `url` is where."""

    def __init__(self, sock: socket.socket, site: Path) -> None:
        host, port = sock.getsockname()[:2]
        self.port = int(port)
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        # Whatever the loop looks after, by its descriptor.
        self._watched: dict[int, Any] = {}
        self._server = waitress.create_server(
            Application(site),
            map=self._watched,
            sockets=[sock],
            threads=_THREADS,
            connection_limit=_MOST_CONNECTIONS,
            channel_timeout=_IDLE_S,
            ident=None,
            max_request_body_size=_MOST_BODY_BYTES,
            clear_untrusted_proxy_headers=True,
        )
        self._server.channel_class = Connection

    def run(self, stop: socket.socket, alive: Callable[[], object] = bool, every_s: float = math.inf) -> None:
        """Serve, in this thread, until `stop` is readable; `alive` is called so often, but once a second at most."""
        _Stop(stop.dup(), self._watched, alive, every_s)
        self._server.run()

    def close(self) -> None:
        """End all connections."""
        for watched in list(self._watched.values()):
            watched.close()


@contextmanager
def listening(site: Path, host: str, port: int) -> Iterator[Web]:
    """A server of a site's directory. Raises MissingError where there is none, ConstruirError for a bad address.

    Neither is a ConfigError: both may be otherwise a moment later.
    """
    if not site.is_dir():
        raise MissingError(f"there are no pages at {site}; they are written by: construir serve")
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.create_server(where[:2], family=family)
    except OSError as error:
        # Python adds the address to the words of bind(2).
        why = str(error.strerror).partition(" (while attempting")[0]
        raise ConstruirError(f"site.address {host}, site.port {port}: {why}; choose others") from error
    with sock, closing(Web(sock, site)) as web:
        yield web
