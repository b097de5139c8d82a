"""The commands that say how things are: SITE QUEUE, SITE STATUS ID, SITE HELP. Anyone may ask."""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from construir_ftp.errors import RefusedError, one_line
from construir_ftp.ftp.commands.listing import BrowsingConnection
from construir_ftp.intake.upload import OUR_FAULT, refusal
from construir_ftp.jobs import status
from construir_ftp.jobs.status import JobStatus, Summary

log = logging.getLogger("construir.ftp")

_MOST_LISTED = 50


def _entry(syntax: str, arg: bool | None) -> dict[str, Any]:
    return {"perm": None, "auth": True, "arg": arg, "help": f"Syntax: {syntax}."}


# As pyftpdlib's table of commands has them.
COMMANDS = {
    "SITE HELP": _entry("SITE HELP (how to make and send a job)", None),
    "SITE QUEUE": _entry("SITE QUEUE (what waits and why, what runs)", None),
    "SITE STATUS": _entry("SITE STATUS <SP> id (where a job is)", True),
}


class AnsweringConnection(BrowsingConnection):
    """A control connection that can be asked."""

    def ftp_SITE_HELP(self, line: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Tell a newcomer how to make and send a job; the same as /README.txt."""
        self._tell(214, "Construir", self.server.notices.readme.splitlines(), "SITE QUEUE, SITE STATUS ID, SITE HELP.")

    def ftp_SITE_QUEUE(self, line: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Tell what waits and why, what runs, and how much room there is."""
        told = self.server.notices.summary()
        self._tell(211, f"{told.waiting} waiting, {len(told.running)} running", _lines(told), "More in /status.json.")

    def ftp_SITE_STATUS(self, name: str) -> None:  # noqa: N802 - pyftpdlib calls it so
        """Tell where a job is, and why: by its id, or by the name that the session's contributor sent it by.

        The latter is how clients that lost the reply to an upload learn what has become of it.
        """
        spool, job_id = self.server.intake.spool, self.job_id(name)
        self.answer_later(self.server.background.read, lambda: _words(status.job(spool, job_id)))

    def job_id(self, name: str) -> str:
        """The id of the job that this session means by `name`."""
        return name

    def answer_later(self, run: Callable[..., None], work: Callable[[], str]) -> None:
        """Have `work` done in the background, and what it returns replied; no other command is obeyed meanwhile."""
        self.hold()
        run(lambda: self._at_any_rate(work), self._answer)

    def _at_any_rate(self, work: Callable[[], str]) -> str:
        try:
            return work()
        except RefusedError as refused:
            return refusal(refused)
        except Exception:
            log.exception("%s: a command could not be obeyed", self.who)
            return OUR_FAULT

    def _answer(self, reply: str) -> None:
        self.resume()
        if not self._closed:
            self.respond(reply)

    def _tell(self, code: int, first: str, lines: list[str], last: str) -> None:
        # RFC 959, 4.2: a line within that begins with a space can't be taken for the last.
        body = "".join(f" {line}\r\n" for line in lines)
        self.push(f"{code}-{first}:\r\n{body}")
        self.respond(f"{code} {last}")


def _lines(told: Summary) -> list[str]:
    listed = [f"{place}. {job}" for place, job in enumerate(told.queue[:_MOST_LISTED], 1)]
    more = [f"... and {told.waiting - _MOST_LISTED} more"] if told.waiting > _MOST_LISTED else []
    uploads = "" if told.accepts_uploads else ": too little, no uploads are taken"
    return [
        *(f"running: {slot.job}{_since(slot.since)}{f'; {slot.doing}' if slot.doing else ''}" for slot in told.running),
        *listed,
        *more,
        *([f"waiting because {told.why}"] if told.why else []),
        f"machines: {told.slots}" + (f", {told.accelerator}" if told.accelerator else ""),
        f"free space: {told.free_bytes // 2**20} MiB{uploads}",
    ]


def _since(moment: datetime | None) -> str:
    return f" since {moment:%Y-%m-%d %H:%M:%S} UTC" if moment else ""


def _words(job: JobStatus | None) -> str:
    if job is None:
        return "550 There is no such job."
    if job.state == "waiting":
        cancelled = "cancelled, " if job.cancelled else ""
        return f"211 {job.id} is {cancelled}waiting, number {job.place} in the queue; {job.why}"
    if job.state == "running":
        why = f"; {job.why}" if job.why else ""
        doing = "being cancelled" if job.cancelled else "running"
        return f"211 {job.id} is {doing}{_since(job.since)}{why}; see /running/{job.id}/"
    return f"211 {job.id} is done: {one_line(f'{job.status}, {job.reason}')}; see /done/{job.id}/"
