"""Whether each upload came to what its contributor was told, by anonymous FTP and by other people's programs.

It knows the FTP server's view, the names of a result's files (docs/results.md), and ssh-keygen(1); nothing of
Construir's own code reads a result here.
"""

import ftplib
import hashlib
import io
import json
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.campaign import material
from tests.campaign.ledger import Entry

_LONG_S = 60
_VERIFY = ("ssh-keygen", "-Y", "verify", "-f", "allowed_signers", "-I", "construir", "-n", "construir", "-s", "sig")
# How a job may end although its kind would end in another way: its machine was killed, or its appliance, three times.
_HARMED = {"no-result", "lost"}


class Seen(NamedTuple):
    """What is in done/ under an id: its files, and what of them can't be right."""

    id: str
    result: dict[str, Any]
    files: dict[str, bytes]
    faults: list[str]


class View:
    """A session of anybody's."""

    def __init__(self, port: int) -> None:
        self._ftp = ftplib.FTP()
        self._ftp.connect("127.0.0.1", port, timeout=_LONG_S)
        self._ftp.login()

    def close(self) -> None:
        """End it."""
        self._ftp.close()

    def file(self, path: str) -> bytes:
        """What is in a file."""
        content = io.BytesIO()
        self._ftp.retrbinary(f"RETR {path}", content.write)
        return content.getvalue()

    def names(self, path: str, kind: str) -> list[str]:
        """What is in a directory: the names of each "dir", or of each "file"."""
        return [name for name, facts in self._ftp.mlsd(path, ["type"]) if facts["type"] == kind]

    def unfinished(self) -> int:
        """How many jobs wait or run."""
        return len(self.names("/running", "dir")) + len(json.loads(self.file("/status.json"))["queue"])

    def results(self, place: Path) -> Iterator[Seen]:
        """Each result, verified with the help of files in `place`."""
        (place / "allowed_signers").write_bytes(self.file("/allowed_signers"))
        for job in self.names("/done", "dir"):
            files = {name: self.file(f"/done/{job}/{name}") for name in self.names(f"/done/{job}", "file")}
            faults = list(_unproved(files, place))
            yield Seen(job, json.loads(files.get("result.json", b"{}")), files, faults)


def _unproved(files: dict[str, bytes], place: Path) -> Iterator[str]:
    if missing := {"result.json", "SHA256SUMS", "SHA256SUMS.sig", "provenance.intoto.jsonl"} - files.keys():
        yield f"has no {', '.join(sorted(missing))}"
        return
    (place / "sig").write_bytes(files["SHA256SUMS.sig"])
    verified = subprocess.run(_VERIFY, cwd=place, input=files["SHA256SUMS"], capture_output=True, check=False)
    if verified.returncode:
        yield f"signature: {verified.stderr.decode()}"
    lines = (line.split("  ", 1) for line in files["SHA256SUMS"].decode().splitlines())
    sums = {name: digest for digest, name in lines}
    for name in files.keys() - {"SHA256SUMS", "SHA256SUMS.sig"}:
        if sums.get(name) != hashlib.sha256(files[name]).hexdigest():
            yield f"{name} is not what SHA256SUMS says"


def violations(entries: list[Entry], seen: list[Seen]) -> Iterator[str]:
    """Every promise that was broken, in words."""
    by_id = {one.id: one for one in seen}
    said = _by_token(seen)
    for one in seen:
        yield from (f"{one.id}: {fault}" for fault in one.faults)
    for entry in entries:
        results = said.get(entry.token, [])
        if len(results) > 1:
            yield f"{entry.token} twice: {', '.join(one.id for one in results)}"
        if entry.outcome == "accepted":
            yield from _broken(entry, by_id.get(entry.id))
        elif results and (entry.outcome != "unknown" or not entry.sound):
            yield f"{entry.token} was {entry.outcome}, sound: {entry.sound}, and ran as {results[0].id}"
        if entry.sound and entry.code.startswith("5"):
            yield f"{entry.token} was refused for good, by no fault of its own: {entry.told}"
    named = {entry.token for entry in entries}
    yield from (f"{one.id} is nobody's" for token, ones in said.items() if token not in named for one in ones)


def owners(entries: list[Entry], seen: list[Seen]) -> dict[str, str]:
    """Who sent each job that has a result, by its id; of one whose verdict did not come, by its token."""
    sent_by = {entry.token: entry.contributor for entry in entries}
    by_id = {one.id: sent_by[token] for token, ones in _by_token(seen).items() if token in sent_by for one in ones}
    return by_id | {entry.id: entry.contributor for entry in entries if entry.id in by_id}


def _by_token(seen: list[Seen]) -> dict[str, list[Seen]]:
    """The results by the token of the upload that each is of: its file's name has it."""
    found = defaultdict(list)
    for one in seen:
        found[str(one.result.get("name", "")).partition(".")[0]].append(one)
    return found


def _broken(entry: Entry, seen: Seen | None) -> Iterator[str]:
    if seen is None:
        yield f"{entry.id} was accepted, and is lost"
        return
    status = seen.result.get("status")
    expected = {material.KINDS[entry.kind].status} | _HARMED | ({"cancelled"} if entry.cancelled else set())
    if status not in expected:
        yield f"{entry.id} ({entry.kind}) ended as {status}: {seen.result.get('reason')}"
    if status in ("success", "failed"):
        if not seen.files.get("output.log", b"").startswith(material.said(entry.token)):
            yield f"{entry.id} ended as {status}, and has not said so"
        if material.left(entry.token) not in material.unpacked(_image(seen)):
            yield f"{entry.id} ended as {status}, and what it left is not in its image"


def _image(seen: Seen) -> bytes:
    return next((content for name, content in seen.files.items() if ".img" in name), b"")
