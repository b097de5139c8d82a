"""Thirty contributors, each with a habit: how it sends a job by a real client, and what it then does with it."""

import ftplib
import io
import random
import re
import secrets
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests.campaign import material
from tests.campaign.ledger import Entry, Ledger
from tests.support import images
from tests.support.ftpclient import PASSWORD, reset

_LONG_S = 60
_ACCEPTED = re.compile(r"2(?:26|50) Accepted as job (\S+),")
# A reply, as ftplib, curl and lftp print it.
_REPLY = re.compile(r"^(?:<-* ?)?([1-5]\d\d) ", re.MULTILINE)
# What the end of a session or of a data connection is told by; none of them is a verdict.
_NO_VERDICTS = {"221", "421", "425", "426"}
# How long one waits after a verdict, and after it found nobody there: seconds.
_PAUSE_S, _ALONE_S = (3.0, 15.0), 3.0


class Upload(NamedTuple):
    """What is to be sent, under which name, by whom."""

    entry: Entry
    name: str
    content: bytes
    place: Path
    port: int


def _plain(port: int, contributor: str) -> ftplib.FTP:
    ftp = ftplib.FTP()
    ftp.connect("127.0.0.1", port, timeout=_LONG_S)
    ftp.login(contributor, PASSWORD)
    return ftp


@contextmanager
def _session(upload: Upload) -> Iterator[ftplib.FTP]:
    ftp = _plain(upload.port, upload.entry.contributor)
    ftp.voidcmd("TYPE I")
    upload.entry.outcome = "unknown"
    try:
        yield ftp
    finally:
        ftp.close()


def _note(entry: Entry, said: str) -> None:
    """Read the verdict from what a client said: it is in the last reply, if anywhere."""
    entry.told = said[-300:]
    replies = [code for code in _REPLY.findall(said) if code != "221"]
    if accepted := _ACCEPTED.search(said):
        entry.outcome, entry.id = "accepted", accepted[1]
    elif replies and replies[-1] >= "4" and replies[-1] not in _NO_VERDICTS:
        entry.outcome, entry.code = "refused", replies[-1]


def by_ftplib(upload: Upload) -> None:
    """In one session."""
    with _session(upload) as ftp:
        _note(upload.entry, ftp.storbinary(f"STOR /queue/{upload.name}", io.BytesIO(upload.content)))


def by_tls(upload: Upload) -> None:
    """The same over TLS."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with ftplib.FTP_TLS(context=context, timeout=_LONG_S) as ftp:
        ftp.connect("127.0.0.1", upload.port)
        ftp.login(upload.entry.contributor, PASSWORD)
        ftp.prot_p()
        upload.entry.outcome = "unknown"
        _note(upload.entry, ftp.storbinary(f"STOR /queue/{upload.name}", io.BytesIO(upload.content)))


def _by_program(upload: Upload, *argv: str) -> None:
    file = upload.place / upload.name
    file.write_bytes(upload.content)
    upload.entry.outcome = "unknown"
    try:
        done = subprocess.run(argv, capture_output=True, timeout=2 * _LONG_S, cwd=upload.place, check=False)
        _note(upload.entry, (done.stdout + done.stderr).decode(errors="replace"))
    finally:
        file.unlink()


def by_curl(upload: Upload) -> None:
    """By curl(1), which prints the replies."""
    user = f"{upload.entry.contributor}:{PASSWORD}"
    url = f"ftp://127.0.0.1:{upload.port}/queue/"
    _by_program(upload, "curl", "-sv", "--max-time", str(_LONG_S), "-u", user, "-T", upload.name, url)


def by_lftp(upload: Upload) -> None:
    """By lftp(1), which sends to a temporary name and renames it, or goes on where it was cut."""
    script = (
        f"debug 4; set net:max-retries 2; set net:timeout 30; set ftp:ssl-allow no; "
        f"open -u '{upload.entry.contributor},{PASSWORD}' ftp://127.0.0.1:{upload.port}; put -O /queue {upload.name}"
    )
    _by_program(upload, "lftp", "--norc", "-c", script)


def cut(upload: Upload) -> None:
    """A half, and then the connection is reset. It must never run."""
    upload.entry.sound = False
    with _session(upload) as ftp:
        upload.entry.outcome = "cut"
        data = ftp.transfercmd(f"STOR /queue/{upload.name}")
        data.sendall(upload.content[: len(upload.content) // 2])
        reset(data)


def resumed(upload: Upload) -> None:
    """A half, and the rest over another connection."""
    with suppress(*_BROKEN), _session(upload) as ftp:
        data = ftp.transfercmd(f"STOR /queue/{upload.name}")
        data.sendall(upload.content[: len(upload.content) // 2])
        data.close()
        ftp.voidresp()
    with _session(upload) as ftp:
        try:
            kept = ftp.size(f"/queue/{upload.name}") or 0
        except ftplib.error_perm:
            kept = 0
        rest = io.BytesIO(upload.content[kept:])
        _note(upload.entry, ftp.storbinary(f"STOR /queue/{upload.name}", rest, rest=kept or None))


def renamed(upload: Upload) -> None:
    """To a temporary name first. The reply to the rename is the verdict."""
    draft = f"{upload.name}.part"
    with _session(upload) as ftp:
        ftp.storbinary(f"STOR /queue/{draft}", io.BytesIO(upload.content))
        ftp.sendcmd(f"RNFR /queue/{draft}")
        _note(upload.entry, ftp.sendcmd(f"RNTO /queue/{upload.name}"))


def cancels(upload: Upload) -> None:
    """Wants no more of it, once it is accepted."""
    by_ftplib(upload)
    upload.entry.cancelled = bool(upload.entry.id)
    with suppress(*_BROKEN), closing(_plain(upload.port, upload.entry.contributor)) as ftp:  # it may have ended
        ftp.delete(f"/queue/{upload.name}")


def hostile(upload: Upload) -> None:
    """Something that is no job."""
    upload.entry.sound = False
    noise = images.noise(len(upload.content) // 2) + upload.content[len(upload.content) // 2 :]
    by_ftplib(upload._replace(content=noise))


_BROKEN = (OSError, EOFError, ftplib.Error, subprocess.TimeoutExpired)
HABITS: tuple[Callable[[Upload], None], ...] = (
    by_ftplib, by_tls, by_curl, by_lftp, cut, resumed, renamed, cancels, hostile, by_ftplib,
)  # fmt: skip


class Contributor(threading.Thread):
    """Sends one job after another until it is told to stop. What it sends is decided by its own random numbers."""

    def __init__(self, number: int, seed: str, port: int, place: Path, ledger: Ledger, stop: threading.Event) -> None:
        super().__init__(name=f"contributor {number}")
        self._habit = HABITS[number % len(HABITS)]
        self._random = random.Random(f"{seed} contributor {number}")
        self._contributor, self._port, self._place = name(number), port, place / name(number)
        self._ledger, self._is_over = ledger, stop
        self._place.mkdir()

    def run(self) -> None:
        """Go on until the end."""
        while not self._is_over.is_set():
            entry = self._send()
            self._ledger.note(entry)
            self._is_over.wait(_ALONE_S if entry.outcome == "not sent" else self._random.uniform(*_PAUSE_S))

    def _send(self) -> Entry:
        kind = self._random.choices(list(material.KINDS), (20, 3, 1, 1, 1))[0]
        codec = self._random.choice(material.CODECS)
        token = secrets.token_hex(16)
        entry = Entry(token=token, contributor=self._contributor, habit=self._habit.__name__, kind=kind)
        upload = Upload(entry, f"{token}.img", material.job(kind, codec, token), self._place, self._port)
        try:
            self._habit(upload)
        except ftplib.Error as error:
            _note(entry, str(error))
        except _BROKEN as error:
            entry.told = repr(error)
        return entry


def name(number: int) -> str:
    """A contributor's name."""
    return f"c{number:02}"
