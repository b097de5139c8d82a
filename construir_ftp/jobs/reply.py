"""What the server says to a client: a code and words (RFC 959, 4.2), and the replies that our own client understands.

Policy returns a Reply, the session sends it. What writes such a reply and what reads it stand side by side here.
"""

import re
from typing import NamedTuple

from construir_ftp.errors import RefusedError, one_line
from construir_ftp.jobs import names

_ACCEPTED = re.compile(r"226 Accepted as job (\S+?), (.*); its result will be in")
_KEPT = re.compile(r"go on after the [0-9]+ bytes that are kept")


class Reply(NamedTuple):
    """One reply. `text` is a line; `lines` come before it, as the body of a reply of several lines (RFC 959, 4.2)."""

    code: int
    text: str
    lines: tuple[str, ...] = ()

    @property
    def is_success(self) -> bool:
        """Whether what was asked for is done (RFC 959, 4.2.1: 2yz)."""
        return 200 <= self.code < 300

    def __str__(self) -> str:
        """As it is sent, without the end of its last line."""
        if not self.lines:
            return f"{self.code} {self.text}"
        first, *body = self.lines
        # A line within that begins with a space can't be taken for the last.
        return "\r\n".join([f"{self.code}-{first}:", *(f" {line}" for line in body), f"{self.code} {self.text}"])


OUR_FAULT = Reply(451, "The upload could not be taken in, by no fault of its own, and was not kept; try again later.")


class Accepted(NamedTuple):
    """What the reply to an upload says of a job: its id, and its place in the queue in words."""

    job_id: str
    place: str


def refused(error: RefusedError, more: str = "") -> Reply:
    """Why an upload is refused."""
    return Reply(error.reply, f"Refused: {one_line(error)}{more}")


def accepted(job_id: str, place: int) -> Reply:
    """An upload is a job now; `place` is its number in the queue, 0 if it has left it, -1 if nobody knows."""
    words = f"number {place} in the queue" if place > 0 else "already being run" if not place else "in the queue"
    return Reply(226, f"Accepted as job {job_id}, {words}; its result will be in /done/{job_id}/")


def read_accepted(text: str) -> Accepted | None:
    """What `accepted` has said; None if `text` says something else."""
    found = _ACCEPTED.match(text)
    return Accepted(found[1], found[2]) if found else None


def kept(name: str) -> Reply:
    """A file is kept that starts nothing by itself."""
    how = "its .changes makes a job of it" if names.is_part(name) else "it becomes a job when it is renamed"
    return Reply(226, f"Kept as {name}; {how}.")


def to_be_continued(error: RefusedError, kept_bytes: int) -> Reply:
    """An upload is refused because its end is missing, and what has come of it is kept."""
    return refused(error, f", or go on after the {kept_bytes} bytes that are kept")


def is_to_be_continued(text: str) -> bool:
    """Whether `to_be_continued` has said so."""
    return _KEPT.search(text) is not None
