"""webhook and command: real receivers, and what goes wrong with them."""

import hashlib
import hmac
import os
import time
import tracemalloc
from pathlib import Path

import pytest

from construir_ftp.jobs.result import Result
from construir_ftp.news import command, events, webhook
from construir_ftp.news.delivery import RejectedError, UndeliveredError
from tests.support.receivers import stuck_server, web_server
from tests.unit.news.test_events import HOSTILE, NOON
from tests.unit.news.test_mail import hello

SECRET = b"open sesame"


def test_a_receiver_gets_signed_json_with_the_result() -> None:
    result = Result(id="id-hello", status="success", name="hello")
    with web_server() as hooks:
        webhook.send(hooks.url, SECRET, "id-1", webhook.body(hello(), {"id-hello": result}))
    ((headers, body),) = hooks.got
    assert headers["X-Construir-Signature"] == "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    assert (headers["Content-Type"], headers["X-Construir-Event"]) == ("application/json", "id-1")
    (told,) = hooks.bodies()
    assert (told["version"], told["id"], told["left_out"]) == (1, "job-id-hello", 0)
    (event,) = told["events"]
    assert (event["kind"], event["job"], event["result"]["name"]) == ("job", "id-hello", "hello")


def test_without_a_secret_nothing_is_signed() -> None:
    with web_server() as hooks:
        webhook.send(hooks.url, b"", "id-1", b"{}")
    assert "X-Construir-Signature" not in hooks.got[0][0]


def test_three_tries_are_made_and_then_it_is_undelivered() -> None:
    with web_server() as hooks:
        hooks.answers = [500, 503]
        webhook.send(hooks.url, SECRET, "id-1", b"{}", between_s=0.0)
        hooks.answers = [500] * 4
        with pytest.raises(UndeliveredError, match="500"):
            webhook.send(hooks.url, SECRET, "id-1", b"{}", between_s=0.0)
        assert (len(hooks.got), hooks.answers) == (6, [500])


def test_a_redirection_is_not_followed_and_what_is_refused_for_good_is_sent_once() -> None:
    with web_server() as hooks:
        hooks.answers = [302] * 3
        with pytest.raises(UndeliveredError, match="302"):
            webhook.send(hooks.url, SECRET, "id-1", b"{}", between_s=0.0)
        assert len(hooks.got) == 3
        hooks.answers = [413]
        with pytest.raises(RejectedError, match="413"):
            webhook.send(hooks.url, SECRET, "id-1", b"{}", between_s=0.0)
        assert len(hooks.got) == 4


def test_tls_is_checked(certificate_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with web_server(certificate_files) as hooks:
        with pytest.raises(UndeliveredError, match="certificate verify failed"):
            webhook.send(hooks.url, SECRET, "id-1", b"{}", between_s=0.0)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate_files[0]))
        webhook.send(hooks.url, SECRET, "id-1", b"{}", between_s=0.0)
    assert len(hooks.got) == 1


@pytest.mark.long
@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000])
def test_a_receiver_that_hangs_or_trickles_is_given_up(says: bytes) -> None:
    before_s = time.monotonic()
    with stuck_server(says, 0.05) as (port, count):
        with pytest.raises(UndeliveredError):
            webhook.send(f"http://127.0.0.1:{port}/", SECRET, "id-1", b"{}", 0.5, 0.0)
        assert count() == 3
    assert time.monotonic() - before_s < 30


def test_a_command_gets_the_text_and_knows_what_it_is_about(tmp_path: Path) -> None:
    got = tmp_path / "got"
    told = events.message([events.ended("id", Result(status="failed", name=HOSTILE), NOON, "")], 0, "host")
    command.run(["/bin/sh", "-c", f"cat >{got}; env >>{got}"], told)
    lines = got.read_text().splitlines()
    assert lines[0] == "id: failed"
    assert "CONSTRUIR_KINDS=job" in lines
    assert "CONSTRUIR_EVENT=job-id" in lines
    assert [line for line in lines if line.startswith("CONSTRUIR_SUBJECT=[host] x??Bcc: victim@example.org")]
    assert not {line.partition("=")[0] for line in lines} & (
        os.environ.keys() - {"PATH", "LC_ALL", "PWD", "SHLVL", "_"}
    )


def test_a_command_that_fails_or_is_missing_has_not_told() -> None:
    with pytest.raises(UndeliveredError, match="no luck"):
        command.run(["/bin/sh", "-c", "echo no luck >&2; exit 3"], hello())
    with pytest.raises(UndeliveredError, match="not installed"):
        command.run(["no-such-program"], hello())


@pytest.mark.long
def test_a_command_that_talks_without_end_fills_no_memory() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(UndeliveredError, match="not done after 3 s"):
            command.run(["/bin/sh", "-c", r"yes & yes >&2 & yes | tr -d '\n' >&2"], hello(), 3.0)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
