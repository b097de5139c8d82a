"""mail: to a real SMTP server, over TLS and without, and to a sendmail program; and what goes wrong on the way."""

import time
from pathlib import Path

import pytest

from construir_ftp.jobs.result import Result
from construir_ftp.news import events, mail
from construir_ftp.news.delivery import RejectedError, UndeliveredError
from construir_ftp.news.events import Message
from construir_ftp.surroundings import NotifySection
from tests.support.receivers import REFUSED, smtp_server, stuck_server
from tests.unit.news.test_events import HOSTILE, NOON

ALICE = "alice@example.org"
QUICK = mail.Patience(step_s=0.5, whole_s=1.0)


def hello(name: str = "hello") -> Message:
    event = events.ended("id-hello", Result(status="success", name=name, reason="run.sh ended with 0 ä"), NOON, "")
    return events.message([event], 0, "host")


def section(port: int, tls: str = "none", **more: str) -> NotifySection:
    return NotifySection(smtp=f"localhost:{port}", smtp_tls=tls, sender="construir@host.example.org", **more)  # type: ignore[arg-type]


def test_a_mail_arrives_as_people_and_programs_expect_it() -> None:
    with smtp_server() as box:
        for _ in range(2):
            mail.post(section(box.port), "")(hello(), ALICE)
    (to, got), (_, again) = box.mails
    assert to == [ALICE]
    assert (got["From"], got["To"], got["Subject"]) == ("construir@host.example.org", ALICE, "[host] hello: success")
    assert got["Auto-Submitted"] == "auto-generated"
    assert got["Message-ID"] == again["Message-ID"] is not None
    assert got.get_content().splitlines()[0] == "id-hello: run.sh ended with 0 ä"


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # aiosmtpd sees no TLS that came first
@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_mail_and_password_go_over_tls(
    tls: str, certificate_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate_files[0]))
    with smtp_server(tls, certificate_files, "construir:secret") as box:
        settings = section(box.port, tls, smtp_user="construir")
        mail.post(settings, "secret")(hello(), ALICE)
        with pytest.raises(UndeliveredError, match="535"):
            mail.post(settings, "wrong")(hello(), ALICE)
    assert (box.subjects(ALICE), box.encrypted) == (["[host] hello: success"], [True])


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_a_server_that_nobody_vouches_for_gets_nothing(tls: str, certificate_files: tuple[Path, Path]) -> None:
    with smtp_server(tls, certificate_files) as box, pytest.raises(UndeliveredError, match="certificate verify failed"):
        mail.post(section(box.port, tls), "")(hello(), ALICE)
    assert box.mails == []


def test_a_server_without_starttls_gets_nothing() -> None:
    with smtp_server() as box, pytest.raises(UndeliveredError, match="STARTTLS"):
        mail.post(section(box.port, "starttls"), "")(hello(), ALICE)
    assert box.mails == []


def test_no_name_of_a_job_adds_a_header_or_a_recipient() -> None:
    with smtp_server() as box:
        mail.post(section(box.port), "")(hello(HOSTILE), ALICE)
        (event,) = hello(HOSTILE).events
        mail.post(section(box.port), "")(Message(HOSTILE, HOSTILE, HOSTILE, (event,)), ALICE)
    assert [to for to, _ in box.mails] == [[ALICE]] * 2
    for (_, got), raw in zip(box.mails, box.raw, strict=True):
        assert set(got.keys()) == {
            *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"),
            *("Content-Type", "Content-Transfer-Encoding", "MIME-Version", "X-Peer", "X-MailFrom", "X-RcptTo"),
        } & set(got.keys())
        assert got["Bcc"] is None
        assert b"\nBcc:" not in raw.partition(b"\r\n\r\n")[0]


def test_a_recipient_unknown_for_good_is_told_apart_from_one_to_try_again() -> None:
    with smtp_server() as box:
        with pytest.raises(RejectedError, match="550 no such user"):
            mail.post(section(box.port), "")(hello(), REFUSED)
        box.is_busy = True
        with pytest.raises(UndeliveredError, match="450 try again"):
            mail.post(section(box.port), "")(hello(), ALICE)
    with pytest.raises(UndeliveredError, match="refused"):
        mail.post(section(box.port), "")(hello(), ALICE)


@pytest.mark.parametrize(("says", "tls"), [(b"", "none"), (b"", "tls"), (b"220-" + b"x" * 1000, "none")])
def test_a_server_that_hangs_or_trickles_is_given_up(says: bytes, tls: str) -> None:
    with stuck_server(says, 0.05) as (port, _), pytest.raises(UndeliveredError):
        before_s = time.monotonic()
        mail.post(section(port, tls), "", QUICK)(hello(), ALICE)
    assert time.monotonic() - before_s < 30


def test_a_sendmail_program_gets_the_mail_and_its_recipient_as_an_argument(tmp_path: Path) -> None:
    program, got = tmp_path / "sendmail", tmp_path / "got"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{got}.argv\ncat >{got}\n')
    program.chmod(0o755)
    mail.post(NotifySection(sendmail=str(program), sender="a@b"), "")(hello(), ALICE)
    assert (tmp_path / "got.argv").read_text() == f"-i\n--\n{ALICE}\n"
    assert b"\r" not in got.read_bytes()
    assert b"\nSubject: [host] hello: success\n" in got.read_bytes()
    program.write_text("#!/bin/sh\necho queue full >&2\nexit 75\n")
    with pytest.raises(UndeliveredError, match="queue full"):
        mail.post(NotifySection(sendmail=str(program)), "")(hello(), ALICE)
