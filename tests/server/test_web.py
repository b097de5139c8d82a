"""Promises of whoever publishes the site: our own server, and Debian's nginx and Caddy with the sites that we ship.

What jobs leave is never a page; of a job that runs there are its logs; nothing can be written, nothing is listed.
"""

import contextlib
import gzip
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from construir_ftp.jobs.result import Artifact
from construir_ftp.jobs.spool import Job, Spool
from construir_ftp.site.connections import MOST_OF_AN_ADDRESS, Connection, network
from construir_ftp.site.publisher import Publisher
from construir_ftp.trust import key_place
from tests.support import signed, sites, webservers
from tests.support.ftpclient import wait_until
from tests.support.sites import LONG_S
from tests.support.webservers import ask

ID = "20261122T104102Z-7f3a-hello"
SCRIPT = b"<script>alert(1)</script>"
STRANGERS = (
    "evil.html",
    "evil.svg",
    "evil.xhtml",
    "evil.js",
    "evil.css",
    "evil.htm.html",
    "page",
    "a b%2f.html",
    "x.log",
)


class Published(NamedTuple):
    """A spool, its site, and what publishes it."""

    spool: Spool
    publisher: Publisher
    running: Job
    port: int


@pytest.fixture(scope="module", params=webservers.NAMES)
def web(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    place = tmp_path_factory.mktemp("web")
    spool = Spool.prepare(place / "spool")
    artifacts = tuple(Artifact(name, name, len(SCRIPT), "") for name in STRANGERS)
    done = sites.put(spool, sites.result(ID, artifacts=artifacts), b"<h1>hello</h1>\n", SCRIPT)
    (done.path / "evil.html").write_bytes(SCRIPT)
    (done.path / "link.txt").symlink_to("/etc/passwd")
    (done.path / ".hidden").write_bytes(b"hidden")
    signed.seal(spool.path)
    running = sites.start(spool, "runs")
    (running.path / "output.log").write_bytes(b"<b>0123456789</b>")
    running.disk.write_bytes(b"disk")
    with (
        sites.publishing(spool, place) as publisher,
        webservers.running(request.param, spool.path / "site", place / "server") as port,
    ):
        yield Published(spool, publisher, running, port)


def policy(path: str, web: Published) -> str:
    return ask(web.port, path).headers.get("content-security-policy", "")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/index.html", "text/html"),
        (f"/jobs/{ID}.html", "text/html"),
        ("/contributors/alice.html", "text/html"),
        ("/contributors/alice.xml", "application/atom+xml"),
        ("/static/style.css", "text/css"),
        ("/static/live.js", "text/javascript"),
        ("/static/icon.svg", "image/svg+xml"),
        ("/status.json", "application/json"),
        ("/robots.txt", "text/plain"),
        ("/construir.pub", "text/plain"),
    ],
)
def test_our_own_pages_are_what_they_are_and_run_our_own_script_alone(web: Published, path: str, kind: str) -> None:
    answer = ask(web.port, path)
    assert answer.status == 200
    assert answer.kind.partition(";")[0] in (kind, kind.replace("text/javascript", "application/javascript"))
    assert answer.headers["x-content-type-options"] == "nosniff"
    told = policy(path, web)
    assert "default-src 'none'" in told
    assert "script-src 'self'" in told
    assert "frame-ancestors 'none'" in told


@pytest.mark.parametrize("name", ["construir.pub", "allowed_signers"])
def test_the_public_keys_are_text_as_ftp_has_them(web: Published, name: str) -> None:
    answer = ask(web.port, f"/{name}")
    assert (answer.status, answer.kind) == (200, "text/plain;charset=utf-8")
    assert answer.body == key_place.published(web.spool.path)[name]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert ask(web.port, "/construir.key").status == 404


@pytest.mark.parametrize("name", STRANGERS)
def test_an_artifact_is_bytes_in_a_sandbox_whatever_it_is_called(web: Published, name: str) -> None:
    path = f"/done/{ID}/artifacts/{name.replace('%', '%25').replace(' ', '%20')}"
    answer = ask(web.port, path)
    assert (answer.status, answer.body) == (200, SCRIPT)
    assert answer.kind == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")


@pytest.mark.parametrize("name", ["output.log", "result.json"])
def test_what_people_read_of_a_result_is_text_in_a_sandbox(web: Published, name: str) -> None:
    answer = ask(web.port, f"/done/{ID}/{name}")
    assert (answer.status, answer.kind) == (200, "text/plain;charset=utf-8")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert ask(web.port, f"/done/{ID}/evil.html").kind == "application/octet-stream"


def test_a_log_that_grows_is_followed_by_range_requests(web: Published) -> None:
    path, size = f"/running/{web.running.id}/output.log", len(b"<b>0123456789</b>")
    first = ask(web.port, path)
    assert (first.status, first.kind) == (200, "text/plain;charset=utf-8")
    part = ask(web.port, path, Range="bytes=3-12")
    assert (part.status, part.body) == (206, b"0123456789")
    assert part.headers["content-range"] == f"bytes 3-12/{size}"
    assert ask(web.port, path, Range="bytes=-4").body == b"</b>"
    nothing = ask(web.port, path, Range=f"bytes={size}-")
    assert (nothing.status, nothing.headers["content-range"]) == (416, f"bytes */{size}")
    with (web.running.path / "output.log").open("ab") as log:
        log.write(b" and more")
    sites.settle(web.publisher)
    assert ask(web.port, path, Range=f"bytes={size}-").body == b" and more"
    (web.running.path / "output.log").write_bytes(b"<b>0123456789</b>")
    (web.spool.path / "site/running" / web.running.id / "output.log").write_bytes(b"<b>0123456789</b>")


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/.version",
        "/.room.json",
        "/../spool/queue",
        "/..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/static/../../lock",
        "/done/../../lock",
        "/done/%2e%2e/lock",
        f"/done/{ID}/.hidden",
        f"/done/{ID}/%2ehidden",
        "/queue/",
        "/incoming/",
        "/running/",
        "/running/ID/upload",
        "/running/ID/disk.img",
        "/running/ID/job.json",
        "/done/",
        f"/done/{ID}",
        f"/done/{ID}/",
        "/jobs/",
        "/jobs/a%00b",
        "/metrics.prom%00",
        "//etc/passwd",
        "/" + "a" * 3000,
    ],
)
def test_nothing_else_is_there_and_nothing_is_listed(web: Published, path: str) -> None:
    answer = ask(web.port, path.replace("ID", web.running.id) if path.startswith("/running") else path)
    assert answer.status in (301, 308) or answer.status >= 400, answer
    assert ID.encode() not in answer.body
    assert b"root:" not in answer.body
    assert b"disk" not in answer.body


def test_a_symbolic_link_in_a_result_is_not_followed(web: Published, request: pytest.FixtureRequest) -> None:
    if "construir" not in request.node.callspec.id:
        pytest.skip("the janitor's and the runner's results hold none, and these servers are told to follow done/")
    assert ask(web.port, f"/done/{ID}/link.txt").status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PROPFIND", "TRACE"])
@pytest.mark.parametrize("path", ["/", f"/done/{ID}/output.log"])
def test_nothing_can_be_written(web: Published, method: str, path: str) -> None:
    assert ask(web.port, path, method, Content_Length="0").status in (403, 405)


def test_a_head_has_the_length_and_no_body(web: Published) -> None:
    answer = ask(web.port, f"/done/{ID}/output.log", "HEAD")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "15", b"")


def test_what_has_not_changed_is_not_sent_again(web: Published) -> None:
    tag = ask(web.port, "/static/style.css").headers["etag"]
    assert ask(web.port, "/static/style.css", If_None_Match=tag).status == 304


def test_clients_that_read_nothing_of_what_is_large_keep_nobody_else_waiting(web: Published) -> None:
    large = web.spool.state("done") / ID / "large"
    with large.open("wb") as file:
        file.truncate(256 << 20)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", web.port)))
            slow.sendall(f"GET /done/{ID}/large HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert slow.recv(12) == b"HTTP/1.1 200"
        assert ask(web.port, "/").status == 200
    assert len(ask(web.port, f"/done/{ID}/large", Range="bytes=1000000-1999999").body) == 1_000_000
    large.unlink()


def test_monitors_find_the_metrics(web: Published) -> None:
    answer = ask(web.port, "/metrics")
    assert answer.status == 200
    assert answer.kind.startswith("text/plain;version=0.0.4")
    body = gzip.decompress(answer.body) if answer.body[:2] == b"\x1f\x8b" else answer.body
    assert b'construir_jobs{state="running"} 1.0' in body


def test_a_socket_in_a_result_is_no_page(tmp_path: Path, spool: Spool) -> None:
    job = sites.put(spool, sites.result(ID))
    with sites.publishing(spool, tmp_path), sites.served(spool.path / "site") as port:
        os.mknod(job.path / "sock", stat.S_IFSOCK | 0o666)
        assert ask(port, f"/done/{ID}/sock").status == 404


def test_until_there_are_pages_the_first_one_says_where_they_come_from(tmp_path: Path, spool: Spool) -> None:
    (spool.path / "site").mkdir()
    with sites.served(spool.path / "site") as port:
        for path in ("/", "/index.html"):
            answer = ask(port, path)
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
            assert "construir serve writes them" in answer.body.decode()
        assert ask(port, "/feed.xml").status == 404
        with sites.publishing(spool, tmp_path):
            assert ask(port, "/").status == 200


def test_an_address_has_twenty_connections_and_keeps_nobody_else_out(tmp_path: Path, spool: Spool) -> None:
    with sites.publishing(spool, tmp_path), sites.served(spool.path / "site") as port, contextlib.ExitStack() as stack:

        def connect() -> socket.socket:
            made = socket.create_connection(("127.0.0.1", port), LONG_S, source_address=("127.0.0.2", 0))
            return stack.enter_context(made)

        kept = [connect() for _ in range(MOST_OF_AN_ADDRESS)]
        for _ in range(200):
            assert connect().recv(1) == b""
        assert ask(port, "/").status == 200
        kept[0].sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert kept[0].recv(12) == b"HTTP/1.0 200"


def test_a_request_that_comes_byte_by_byte_is_ended(
    tmp_path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "request_s", 1.0)
    with sites.publishing(spool, tmp_path), sites.served(spool.path / "site") as port:
        with socket.create_connection(("127.0.0.1", port), LONG_S) as slow:
            wait_until(lambda: not _goes_on(slow), "the server ends it")
        assert ask(port, "/").status == 200


def _goes_on(slow: socket.socket) -> bool:
    """Whether one more byte of a request is taken."""
    try:
        slow.sendall(b"G")
    except OSError:
        return False
    return True


def test_an_address_is_counted_with_those_of_its_owner() -> None:
    assert network("2001:db8::1") == network("2001:db8::2") != network("2001:db8:0:1::1")
    assert network("::ffff:192.0.2.1") == network("192.0.2.1") != network("192.0.2.2")
    assert (network("127.0.0.1"), network("::1")) == ("127.0.0.1/32", "::1/128")
