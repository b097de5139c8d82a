"""A webhook: a message as JSON, by POST, signed with a secret that the receiver knows, too.

X-Construir-Signature: sha256=...   HMAC-SHA256 (RFC 2104) of the body, in hexadecimal
X-Construir-Event: ...              the message's id; it is the same if the message comes again
"""

import hmac
import http.client
import ssl
import time
from urllib.parse import urlsplit

import msgspec

from construir_ftp import __version__
from construir_ftp.errors import one_line
from construir_ftp.jobs.result import Result
from construir_ftp.news.delivery import RejectedError, UndeliveredError, deadline
from construir_ftp.news.events import Message

_TRY_S, _BETWEEN_S = 10.0, 1.0
_TRIES = 3
# What says that this body will never do, whoever mends what.
_HOPELESS = (400, 410, 413, 415, 422)


def body(message: Message, results: dict[str, Result]) -> bytes:
    """The JSON of a message; `results` are those of its jobs that are still there, by their ids."""
    events = [
        {**msgspec.to_builtins(event), **({"result": results[event.job]} if event.job in results else {})}
        for event in message.events
    ]
    told = {"version": 1, "id": message.id, "subject": message.subject, "events": events, "left_out": message.left_out}
    return msgspec.json.encode(told)


def signature(secret: bytes, content: bytes) -> str:
    """What proves a body to be from who knows the secret."""
    return "sha256=" + hmac.new(secret, content, "sha256").hexdigest()


def send(
    url: str, secret: bytes, identity: str, content: bytes, try_s: float = _TRY_S, between_s: float = _BETWEEN_S
) -> None:
    """Have the receiver take it, in three tries of so many seconds. Raises UndeliveredError and RejectedError."""
    for tries_left in reversed(range(_TRIES)):
        try:
            _post(url, _headers(secret, identity, content), content, try_s)
            return
        except UndeliveredError:
            if not tries_left:
                raise
            time.sleep(between_s)


def _headers(secret: bytes, identity: str, content: bytes) -> dict[str, str]:
    signed = {"X-Construir-Signature": signature(secret, content)} if secret else {}
    about = {"Content-Type": "application/json", "User-Agent": f"construir/{__version__}"}
    return {**about, "X-Construir-Event": identity.encode("ascii", "replace").decode(), **signed}


def _post(url: str, headers: dict[str, str], content: bytes, try_s: float) -> None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    connection = (
        http.client.HTTPSConnection(host, parts.port, timeout=try_s, context=ssl.create_default_context())
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, parts.port, timeout=try_s)
    )
    try:
        with deadline(connection, try_s):
            connection.request(
                "POST", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), content, headers
            )
            status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise UndeliveredError(f"webhook at {host}: {one_line(error) or type(error).__name__}") from error
    finally:
        connection.close()
    # A redirection is none of ours to follow: the operator has named who is told.
    if not 200 <= status < 300:
        kind = RejectedError if status in _HOPELESS else UndeliveredError
        raise kind(f"webhook at {host} answers {status}")
