"""Mail: what a message looks like, and its way to an SMTP server or a sendmail program.

A header is one line whatever a job is called. The recipient is an argument of ours, and never read out of the message.
"""

import hashlib
import smtplib
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import NamedTuple

from construir_ftp import process
from construir_ftp.errors import CommandError, one_line
from construir_ftp.news.delivery import RejectedError, UndeliveredError, deadline
from construir_ftp.news.events import Message
from construir_ftp.surroundings import NotifySection


class Patience(NamedTuple):
    """How long an SMTP server may take for one step, and for all of a mail."""

    step_s: float = 10.0
    whole_s: float = 60.0


_USUAL = Patience()
_SENDMAIL_S = 60.0

Post = Callable[[Message, str], None]


def letter(message: Message, sender: str, to: str) -> EmailMessage:
    """The mail that tells a message. One that is sent again has the same Message-ID."""
    mail = EmailMessage(SMTP)
    mail["From"], mail["To"] = sender, to
    mail["Subject"] = one_line(message.subject)
    mail["Date"] = format_datetime(datetime.now(UTC))
    digest = hashlib.sha256(f"{message.id} {to}".encode()).hexdigest()[:32]
    mail["Message-ID"] = f"<{digest}@{sender.rpartition('@')[2]}>"
    # RFC 3834: nobody's holiday program answers it.
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(message.text)
    return mail


def default_sender() -> str:
    """Who writes, where the configuration doesn't say."""
    return f"construir@{socket.gethostname() or 'localhost'}"


def post(section: NotifySection, password: str, patience: Patience = _USUAL) -> Post:
    """What sends a message to an address. It raises UndeliveredError and RejectedError."""
    sender = section.sender or default_sender()

    def send(message: Message, to: str) -> None:
        mail = letter(message, sender, to)
        if section.sendmail:
            _by_program(section.sendmail, mail, to)
        else:
            _by_smtp(section, password, mail, to, patience)

    return send


def _by_program(program: str, mail: EmailMessage, to: str) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(mail.as_bytes(policy=SMTP.clone(linesep="\n")))
        file.seek(0)
        try:
            # -i: a line with a dot alone does not end it.
            process.run([program, "-i", "--", to], timeout_s=_SENDMAIL_S, stdin=file)
        except CommandError as error:
            raise UndeliveredError(str(error)) from error


def _by_smtp(section: NotifySection, password: str, mail: EmailMessage, to: str, patience: Patience) -> None:
    try:
        with _connected(section, patience) as client:
            if section.smtp_user:
                client.login(section.smtp_user, password)
            client.send_message(mail, to_addrs=[to])
    except smtplib.SMTPRecipientsRefused as error:
        raise _of_code(*error.recipients[to], f"{section.smtp} refuses {to}") from error
    except smtplib.SMTPResponseException as error:
        # What is not about this mail, such as a wrong password, is for the operator to mend: it goes then.
        refused = _of_code(error.smtp_code, error.smtp_error, f"{section.smtp} refuses")
        raise (refused if isinstance(error, smtplib.SMTPDataError) else UndeliveredError(str(refused))) from error
    except (OSError, smtplib.SMTPException) as error:
        raise UndeliveredError(f"{section.smtp}: {one_line(error) or 'closed the connection'}") from error


@contextmanager
def _connected(section: NotifySection, patience: Patience) -> Iterator[smtplib.SMTP]:
    """A session with the server, over TLS unless the operator wants none."""
    host, _, port = section.smtp.rpartition(":")
    trust = ssl.create_default_context()
    client = smtplib.SMTP_SSL(context=trust) if section.smtp_tls == "tls" else smtplib.SMTP()
    client.timeout = patience.step_s
    # The name that its certificate is for. smtplib has it from a constructor that connects, too, which nobody watches.
    client._host = host.strip("[]")  # type: ignore[attr-defined]
    with deadline(client, patience.whole_s), closing(client):
        code, said = client.connect(host.strip("[]"), int(port))
        if code != 220:
            raise smtplib.SMTPConnectError(code, said)
        if section.smtp_tls == "starttls":
            client.starttls(context=trust)
        yield client


def _of_code(code: int, said: bytes | str, what: str) -> UndeliveredError | RejectedError:
    words = said.decode(errors="replace") if isinstance(said, bytes) else said
    kind = RejectedError if 500 <= code < 600 else UndeliveredError
    return kind(f"{what}: {code or ''} {one_line(words)}"[:400])
