"""What the server itself has to say, as files that anyone can read: how to use it, and how it is doing.

    /README.txt    /status.json    /running/<id>/status.json    /construir.pub    /allowed_signers

The two of status are made when they are read, from what `status` knows. The last two are the keys that results are
signed with, once the runner has made one.
"""

import io
import stat
import time
from os import stat_result

import msgspec

from construir_ftp.jobs import inquiry
from construir_ftp.jobs.spool import Spool
from construir_ftp.jobs.status import Summary
from construir_ftp.trust import key_place

README, STATUS = "README.txt", "status.json"

# A status that took long to find out is told again for so many times as long, so that readers can't keep us busy with
# nothing else; one of an ordinary queue takes a millisecond.
_KEPT = 10.0
# What was told as a file's size is what is sent to whoever then asks for the file; but not for longer than this.
_AGREED_S = 10.0


class Notice(io.BytesIO):
    """A file that is sent from memory; pyftpdlib wants its name."""

    def __init__(self, path: str, content: bytes) -> None:
        super().__init__(content)
        self.name = path


class Notices:
    """The same for all sessions."""

    def __init__(self, spool: Spool, min_free_bytes: int, readme: str) -> None:
        self.readme = readme
        self._spool, self._min_free_bytes = spool, min_free_bytes
        self._begun_s = time.time()
        self._summary: Summary | None = None
        self._good_until_s = 0.0

    def read(self, path: str) -> bytes | None:
        """What the file at `path` holds; None if there is no such file."""
        names = [name for name in path.split("/") if name]
        if names == [README]:
            return self.readme.encode()
        if names == [STATUS]:
            return _json(self.summary())
        if len(names) == 1 and names[0] in key_place.SHOWN:
            return key_place.published(self._spool.path).get(names[0])
        if len(names) == 3 and names[0] == "running" and names[2] == STATUS:
            return self._of_job(names[1])
        return None

    def at_root(self) -> list[str]:
        """The names of those that are at the root."""
        return [README, STATUS, *key_place.published(self._spool.path)]

    def stat(self, path: str) -> stat_result | None:
        """The same of its status; only the guide has a time of its own."""
        content = self.read(path)
        if content is None:
            return None
        now_s = self._begun_s if path.endswith(README) else time.time()
        return stat_result((stat.S_IFREG | 0o444, 0, 0, 1, 0, 0, len(content), now_s, now_s, now_s))

    def summary(self) -> Summary:
        """What the appliance is doing; as of now, or nearly."""
        begun_s = time.monotonic()
        if self._summary is None or begun_s >= self._good_until_s:
            self._summary = inquiry.summary(self._spool, self._min_free_bytes)
            done_s = time.monotonic()
            self._good_until_s = done_s + _KEPT * (done_s - begun_s)
        return self._summary

    def _of_job(self, job_id: str) -> bytes | None:
        found = inquiry.job(self._spool, job_id)
        return _json(found) if found is not None and found.state == "running" else None


class Agreed:
    """What a session was told of a file's size, until it has fetched the file: both have to be of the same moment."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices
        self._told: tuple[str, bytes, float] | None = None

    def size(self, path: str) -> int | None:
        """The size in bytes of what `open` will send."""
        content = self._notices.read(path)
        if content is None:
            return None
        self._told = path, content, time.monotonic() + _AGREED_S
        return len(content)

    def open(self, path: str) -> Notice | None:
        """The file; None if it is none of these."""
        told, self._told = self._told, None
        if told is not None and told[0] == path and time.monotonic() < told[2]:
            return Notice(path, told[1])
        content = self._notices.read(path)
        return None if content is None else Notice(path, content)


def _json(told: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(told)) + b"\n"
